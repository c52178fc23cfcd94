//! Compression: whether a text is sent as gzip (RFC 9110, sections 8.4.1.3 and 12.5.3).

/// Smallest text that is worth it, in bytes: below, both forms fit one packet with the head.
pub const COMPRESS_MIN_BYTES: u64 = 1024;
/// Largest text that is compressed, in bytes: index files end here, and whatever is larger
/// streams, which nobody compresses anew for every request.
pub const COMPRESS_MAX_BYTES: u64 = 1024 * 1024;

/// Whether something of this type and size has a gzip form beside its own: text does, and
/// what is made of digests, or compressed already, does not.
pub fn is_compressible(content_type: &str, size_bytes: u64) -> bool {
    let text = content_type.starts_with("text/") || content_type == "application/json";
    text && (COMPRESS_MIN_BYTES..=COMPRESS_MAX_BYTES).contains(&size_bytes)
}

/// Whether an `Accept-Encoding` field takes gzip, and no less gladly than the plain bytes.
///
/// A coding that is not named has the weight of `*`; without `*`, gzip is not taken and the
/// plain bytes are. A malformed weight is none, so that doubt means plain bytes.
pub fn accepts_gzip(field: &str) -> bool {
    let (mut gzip, mut identity, mut any) = (None, None, None);
    for element in field.split(',') {
        let (coding, weight) = match element.split_once(';') {
            Some((coding, weight)) => (coding.trim(), weight_thousandths(weight)),
            None => (element.trim(), 1000),
        };
        if coding.eq_ignore_ascii_case("gzip") || coding.eq_ignore_ascii_case("x-gzip") {
            gzip = Some(weight);
        } else if coding.eq_ignore_ascii_case("identity") {
            identity = Some(weight);
        } else if coding == "*" {
            any = Some(weight);
        }
    }
    let gzip = gzip.or(any).unwrap_or(0);
    gzip > 0 && gzip >= identity.unwrap_or(0)
}

/// `q=0.8` as 800 (RFC 9110, section 12.4.2).
fn weight_thousandths(parameter: &str) -> u32 {
    let parameter = parameter.trim();
    let Some(number) = parameter.strip_prefix("q=").or_else(|| parameter.strip_prefix("Q=")) else {
        return 0;
    };
    let (whole, part) = number.split_once('.').unwrap_or((number, ""));
    let digits = part.len() <= 3 && part.bytes().all(|byte| byte.is_ascii_digit());
    match whole {
        "1" if digits && part.bytes().all(|byte| byte == b'0') => 1000,
        "0" if digits => format!("{part:0<3}").parse().unwrap_or(0),
        _ => 0,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_accepts_gzip() {
        for (field, accepts) in [
            ("gzip", true),
            ("GZIP", true),
            ("x-gzip", true),
            ("br, gzip", true),
            ("deflate, gzip;q=1.0, *;q=0.5", true),
            ("gzip;q=0.001", true),
            ("gzip ; q=0.5 , identity;q=0.5", true),
            ("*", true),
            ("*;q=0.1", true),
            ("br, *;q=0", false),
            ("gzip;q=0, *", false),
            ("gzip;q=0.5, identity;q=0.8", false),
            ("identity", false),
            ("br", false),
            ("", false),
            ("gzip;q=0", false),
            ("gzip;q=0.000", false),
            ("gzip;q=2", false),
            ("gzip;q=0.1234", false),
            ("gzip;q=1.001", false),
            ("gzip;q=", false),
            ("gzip;q=-1", false),
            ("gzip;level=9", false),
        ] {
            assert_eq!(accepts_gzip(field), accepts, "{field:?}");
        }
    }

    #[test]
    fn what_is_compressed() {
        for (content_type, size_bytes, expected) in [
            ("text/plain; charset=utf-8", 1024, true),
            ("text/html; charset=utf-8", 4096, true),
            ("application/json", 1024 * 1024, true),
            ("application/json", 1024 * 1024 + 1, false),
            ("text/plain", 1023, false),
            ("application/octet-stream", 4096, false),
        ] {
            assert_eq!(is_compressible(content_type, size_bytes), expected, "{content_type}");
        }
    }

    proptest! {
        #[test]
        fn no_field_is_too_strange(field in ".{0,40}|[gzip*;q=01., ]{0,40}") {
            let _either = accepts_gzip(&field);
        }
    }
}
