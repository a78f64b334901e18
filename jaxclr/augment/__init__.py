"""Random views of uint8 images, computed in batches on the device."""

from jaxclr.augment.blur import gaussian_blur as gaussian_blur
from jaxclr.augment.boxes import CROP_DRAWS as CROP_DRAWS
from jaxclr.augment.boxes import crop_box as crop_box
from jaxclr.augment.color import adjust_brightness as adjust_brightness
from jaxclr.augment.color import adjust_contrast as adjust_contrast
from jaxclr.augment.color import adjust_hue as adjust_hue
from jaxclr.augment.color import adjust_saturation as adjust_saturation
from jaxclr.augment.color import color_jitter as color_jitter
from jaxclr.augment.color import grayscale as grayscale
from jaxclr.augment.color import solarize as solarize
from jaxclr.augment.corrupt import add_noise as add_noise
from jaxclr.augment.corrupt import erase as erase
from jaxclr.augment.geometry import affine as affine
from jaxclr.augment.geometry import crop_resize as crop_resize
from jaxclr.augment.geometry import flip as flip
from jaxclr.augment.geometry import resize as resize
from jaxclr.augment.geometry import warp as warp
from jaxclr.augment.image_views import DigitView as DigitView
from jaxclr.augment.image_views import PhotoView as PhotoView
from jaxclr.augment.masks import block_masks as block_masks
from jaxclr.augment.recipes import AUGMENTATIONS as AUGMENTATIONS
from jaxclr.augment.recipes import Augmentation as Augmentation
from jaxclr.augment.recipes import with_size as with_size
from jaxclr.augment.recipes import with_views as with_views
