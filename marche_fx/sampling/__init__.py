"""Many images of one model, whoever computes them: ``marche_fx.sample`` and ``marche-fx sample``.

run       the whole: `sample`; start here           plan      what a run makes, checked
making    share after share                         ranks     the processes of a run, each of which claims shares
share     consecutive images and the draws of each  labels    which image shows what
pictures  what a loop returned, as it is kept       formats   as files: PNG, NPZ, safetensors
folder    shares on disk, whole or not at all       identity  what images come from
moments   mean and covariance of features, merged   adm       all images in one file, for evaluations
progress  images a second, and the time that is left
bundled   the models that come along                command   what ``marche-fx sample`` does with its options
"""

from .making import images_of
from .moments import Moments
from .ranks import local_device
from .run import Sampled, sample
from .share import Share

__all__ = ["Moments", "Sampled", "Share", "images_of", "local_device", "sample"]
