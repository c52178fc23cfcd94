//! The service `resize` through the plugin's exported table.
#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::io::Cursor;

use demo_thumbnail::{MAX_IMAGE_BYTES, MAX_THUMBNAIL_SIDE, modunest_plugin_v1};
use image::{DynamicImage, ImageFormat, Rgb, RgbImage, Rgba, RgbaImage};
use modunest_sdk::Error;
use modunest_sdk::testing::{TestHost, TestPlugin};

fn resize(width: u32, height: u32, image: &[u8]) -> Result<DynamicImage, Error> {
    let payload = [&width.to_le_bytes()[..], &height.to_le_bytes()[..], image].concat();
    let png = call(&payload)?;
    assert_eq!(image::guess_format(&png).unwrap(), ImageFormat::Png);
    Ok(image::load_from_memory(&png).unwrap())
}

fn call(payload: &[u8]) -> Result<Vec<u8>, Error> {
    // SAFETY: the entry that the plugin's macro made.
    unsafe { TestPlugin::from_table(modunest_plugin_v1(), &TestHost::new(), b"") }
        .unwrap()
        .service("resize", payload)
}

fn encoded(image: impl Into<DynamicImage>, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.into().write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

/// Red on the left, blue on the right.
fn halves(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, _| {
        if x < width / 2 { Rgb([250, 10, 10]) } else { Rgb([10, 10, 250]) }
    })
}

fn refusal(outcome: Result<impl std::fmt::Debug, Error>) -> String {
    match outcome {
        Err(Error::InvalidInput(text)) => text,
        other => panic!("must be refused as invalid input, not {other:?}"),
    }
}

#[test]
fn png_and_jpeg_shrink_with_their_proportions() {
    for format in [ImageFormat::Png, ImageFormat::Jpeg] {
        let small = resize(64, 64, &encoded(halves(400, 200), format)).unwrap().into_rgb8();
        assert_eq!(small.dimensions(), (64, 32));
        let (left, right) = (small.get_pixel(5, 16), small.get_pixel(58, 16));
        assert!(left[0] > 200 && left[2] < 60 && right[0] < 60 && right[2] > 200);
    }
}

#[test]
fn small_images_keep_their_size_and_alpha_stays() {
    let image = RgbaImage::from_pixel(10, 20, Rgba([1, 2, 3, 128]));
    let same = resize(64, 64, &encoded(image.clone(), ImageFormat::Png)).unwrap();
    assert_eq!(same.into_rgba8(), image);
}

#[test]
fn a_cameras_orientation_is_applied() {
    let jpeg = encoded(halves(40, 20), ImageFormat::Jpeg);
    // EXIF, big-endian, one entry: orientation (0x0112) = 6, turn right by 90 degrees.
    let exif = b"Exif\0\0MM\0\x2a\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0";
    let length = u16::try_from(exif.len() + 2).unwrap().to_be_bytes();
    let turned = [&jpeg[..2], b"\xff\xe1", &length, exif, &jpeg[2..]].concat();
    let image = resize(64, 64, &turned).unwrap().into_rgb8();
    assert_eq!(image.dimensions(), (20, 40));
    assert!(image.get_pixel(10, 2)[0] > 200, "left is on top now");
}

#[test]
fn bad_payloads_and_sizes_are_refused() {
    let png = encoded(halves(4, 4), ImageFormat::Png);
    assert_eq!(refusal(call(b"1234567")), "the payload ends before the image");
    for side in [0, MAX_THUMBNAIL_SIDE + 1, u32::MAX] {
        assert!(refusal(resize(side, 10, &png)).starts_with("a thumbnail's side"));
        assert!(refusal(resize(10, side, &png)).starts_with("a thumbnail's side"));
    }
    for junk in [&b""[..], b"junk", b"GIF89a\x01\0\x01\0\0\0\0;"] {
        assert_eq!(refusal(resize(10, 10, junk)), "neither a PNG nor a JPEG image");
    }
    assert!(refusal(resize(10, 10, &vec![0; MAX_IMAGE_BYTES + 1])).contains("above the limit"));
}

#[test]
fn damaged_images_are_refused_not_followed() {
    for format in [ImageFormat::Png, ImageFormat::Jpeg] {
        let good = encoded(halves(40, 40), format);
        // The head alone decides nothing about the rest: cut it everywhere.
        for end in (8..good.len() / 2).step_by(7) {
            if let Err(error) = resize(10, 10, &good[..end]) {
                assert!(matches!(error, Error::InvalidInput(_)), "{end}: {error}");
            }
        }
        assert!(refusal(resize(10, 10, &good[..20])).starts_with("the image cannot be read"));
    }
}

#[test]
fn a_decompression_bomb_is_refused_by_its_head() {
    // A PNG's IHDR that declares 50,000 x 50,000 pixels, with a right checksum.
    let mut chunk = b"IHDR".to_vec();
    chunk.extend(50_000_u32.to_be_bytes());
    chunk.extend(50_000_u32.to_be_bytes());
    chunk.extend([8, 6, 0, 0, 0]);
    let crc = !chunk.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 }
        })
    });
    let mut png = b"\x89PNG\r\n\x1a\n\0\0\0\x0d".to_vec();
    png.extend(chunk);
    png.extend(crc.to_be_bytes());
    png.extend(b"\0\0\0\x04IDAT");
    png.extend([0; 8]);
    let text = refusal(resize(10, 10, &png));
    assert!(text.starts_with("an image of 50000 x 50000 pixels is above"), "{text}");
}
