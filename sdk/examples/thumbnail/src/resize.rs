//! Decoding within limits, resizing, encoding.

use std::io::Cursor;

use image::imageops::FilterType;
use image::{DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader, Limits};
use modunest_sdk::Error;

/// Most bytes of an image: a photo of a good camera.
pub const MAX_IMAGE_BYTES: usize = 15 * 1024 * 1024;
/// Most pixels of an image: 40 megapixels, the largest of common cameras.
pub const MAX_IMAGE_PIXELS: u64 = 40_000_000;
/// Largest width and height of a thumbnail.
pub const MAX_THUMBNAIL_SIDE: u32 = 2_048;
/// Most bytes a decoder may ask for: the pixels above at 4 bytes each.
const MAX_DECODED_BYTES: u64 = MAX_IMAGE_PIXELS * 4;

/// Makes the thumbnail.
///
/// # Errors
///
/// [`Error::InvalidInput`] with the limit that is broken, or why the bytes are no
/// image that this plugin reads.
pub fn resize(width: u32, height: u32, image: &[u8]) -> Result<Vec<u8>, Error> {
    for side in [width, height] {
        if !(1..=MAX_THUMBNAIL_SIDE).contains(&side) {
            return Err(Error::InvalidInput(format!(
                "a thumbnail's side of {side} pixels is not from 1 to {MAX_THUMBNAIL_SIDE}"
            )));
        }
    }
    let image = decode(image)?;
    let image = if image.width() <= width && image.height() <= height {
        image
    } else {
        image.resize(width, height, FilterType::CatmullRom)
    };
    encode(image)
}

fn decode(image: &[u8]) -> Result<DynamicImage, Error> {
    if image.len() > MAX_IMAGE_BYTES {
        return Err(Error::InvalidInput(format!(
            "an image of {} bytes is above the limit of {MAX_IMAGE_BYTES}",
            image.len()
        )));
    }
    let format = image::guess_format(image)
        .ok()
        .filter(|format| matches!(format, ImageFormat::Png | ImageFormat::Jpeg))
        .ok_or_else(|| Error::invalid_input("neither a PNG nor a JPEG image"))?;
    let mut reader = ImageReader::with_format(Cursor::new(image), format);
    let mut limits = Limits::no_limits();
    limits.max_alloc = Some(MAX_DECODED_BYTES);
    reader.limits(limits);

    let mut decoder = reader.into_decoder().map_err(describe)?;
    let (width, height) = decoder.dimensions();
    // Asked before the pixels are decoded, so that a bomb costs nothing.
    if u64::from(width) * u64::from(height) > MAX_IMAGE_PIXELS
        || decoder.total_bytes() > MAX_DECODED_BYTES
    {
        return Err(Error::InvalidInput(format!(
            "an image of {width} x {height} pixels is above the limit of {MAX_IMAGE_PIXELS} pixels or {MAX_DECODED_BYTES} bytes"
        )));
    }
    let orientation = decoder.orientation().map_err(describe)?;
    let mut image = DynamicImage::from_decoder(decoder).map_err(describe)?;
    image.apply_orientation(orientation);
    Ok(image)
}

fn encode(image: DynamicImage) -> Result<Vec<u8>, Error> {
    // Thumbnails are for screens: 8 bits a channel, and no alpha where none was.
    let image = if image.color().has_alpha() {
        DynamicImage::ImageRgba8(image.into_rgba8())
    } else {
        DynamicImage::ImageRgb8(image.into_rgb8())
    };
    let mut png = Cursor::new(Vec::new());
    image.write_to(&mut png, ImageFormat::Png).map_err(Error::failed)?;
    Ok(png.into_inner())
}

fn describe(error: ImageError) -> Error {
    Error::InvalidInput(format!("the image cannot be read: {error}"))
}
