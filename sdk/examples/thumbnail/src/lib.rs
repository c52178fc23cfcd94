//! The sample plugin `demo/thumbnail`: its service `resize` takes a little-endian
//! `u32` width, a `u32` height and the bytes of a PNG or JPEG image, and answers a
//! PNG that fits into them with its proportions kept. Images that fit already keep
//! their size. The orientation that a camera noted is applied.

mod resize;

pub use resize::{MAX_IMAGE_BYTES, MAX_IMAGE_PIXELS, MAX_THUMBNAIL_SIDE};

use modunest_sdk::{Error, Host, Plugin, Request, export_plugin};

/// The plugin. It keeps no state.
pub struct Thumbnail;

impl Plugin for Thumbnail {
    fn create(_host: Host, _config: &[u8]) -> Result<Self, Error> {
        Ok(Self)
    }

    fn call(&self, request: Request<'_>) -> Result<Vec<u8>, Error> {
        match request.target {
            "resize" => {
                let (width, height, image) = read_payload(request.payload)?;
                resize::resize(width, height, image)
            }
            other => Err(Error::not_found(format!("no service `{other}`"))),
        }
    }
}

fn read_payload(payload: &[u8]) -> Result<(u32, u32, &[u8]), Error> {
    let cut = payload.split_first_chunk::<4>().and_then(|(width, rest)| {
        let (height, image) = rest.split_first_chunk::<4>()?;
        Some((u32::from_le_bytes(*width), u32::from_le_bytes(*height), image))
    });
    cut.ok_or_else(|| Error::invalid_input("the payload ends before the image"))
}

export_plugin!(Thumbnail);
