"""The models by name; a new one adds its line here."""

from typing import Any

from attpc_export.models.ar0 import Ar0, Ar0Settings
from attpc_export.models.ar1 import Ar1, Ar1Settings
from attpc_export.models.autoencoder import Autoencoder, AutoencoderSettings
from attpc_export.models.backbone import BackboneModel, BackboneSettings
from attpc_export.models.base import LatentModel
from attpc_export.models.dcec import Dcec, DcecSettings
from attpc_export.models.draw import Draw, DrawSettings
from attpc_export.models.duelling import Duelling, DuellingSettings
from attpc_export.models.joint import Joint, JointSettings
from attpc_export.models.mixae import Mixae, MixaeSettings
from attpc_export.models.points import Points, PointsSettings
from attpc_filter.errors import UsageError

#: Name in a configuration's ``model.kind``, the settings it takes and the model.
MODELS: dict[str, tuple[type[Any], type[Any]]] = {
    "autoencoder": (AutoencoderSettings, Autoencoder),
    "ar0": (Ar0Settings, Ar0),
    "ar1": (Ar1Settings, Ar1),
    "backbone": (BackboneSettings, BackboneModel),
    "dcec": (DcecSettings, Dcec),
    "draw": (DrawSettings, Draw),
    "duelling": (DuellingSettings, Duelling),
    "joint": (JointSettings, Joint),
    "mixae": (MixaeSettings, Mixae),
    "points": (PointsSettings, Points),
}

#: Shape of a projection that is not there.
NO_IMAGE = (0, 0, 0)


def build_model(settings: Any, image_shape: tuple[int, int, int] = NO_IMAGE) -> LatentModel:
    """Make an untrained model.

    Parameters
    ----------
    settings : dataclass
        One of the settings in :data:`MODELS`; it decides which model it is.
    image_shape : tuple of int
        (channels, rows, columns) of a projection, for a model that reads one.

    Raises
    ------
    UsageError
        If the model cannot be made for such projections.
    """
    (kind,) = (kind for settings_kind, kind in MODELS.values() if type(settings) is settings_kind)
    try:
        model: LatentModel = kind(settings, image_shape)
    except ValueError as error:
        raise UsageError(f"model: {error}") from error
    return model
