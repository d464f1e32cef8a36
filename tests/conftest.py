"""Settings that all tests share."""

import atexit
import gc
import os
import shutil
import tempfile

import torch
from hypothesis import HealthCheck, Phase, settings

torch.set_num_threads(1)

# Captures make many objects that stay, and looking among them for garbage as often as Python does takes a tenth of the
# time of the tests. Those of what is freed collect by themselves.
gc.set_threshold(20_000, 20, 20)

# The secret by which kernels are signed is made where no user keeps his own.
os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="marche_fx-tests-")
atexit.register(shutil.rmtree, os.environ["XDG_CACHE_HOME"], ignore_errors=True)

# Capturing a step takes a second, so examples are few and failing ones are not made smaller;
# `HYPOTHESIS_PROFILE=search` looks longer and elsewhere.
checks = [HealthCheck.too_slow, HealthCheck.data_too_large]
settings.register_profile(
    "suite",
    deadline=None,
    max_examples=15,
    derandomize=True,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=checks,
)
settings.register_profile("search", deadline=None, max_examples=300, suppress_health_check=checks)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "suite"))
