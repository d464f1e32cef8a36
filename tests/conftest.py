"""Settings that all tests share."""

import os

import torch
from hypothesis import HealthCheck, settings

torch.set_num_threads(1)

# Capturing a step takes a second, so examples are few; `HYPOTHESIS_PROFILE=search` looks longer and elsewhere.
checks = [HealthCheck.too_slow, HealthCheck.data_too_large]
settings.register_profile("suite", deadline=None, max_examples=15, derandomize=True, suppress_health_check=checks)
settings.register_profile("search", deadline=None, max_examples=300, suppress_health_check=checks)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "suite"))
