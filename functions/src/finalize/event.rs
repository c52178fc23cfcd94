//! S3 event notifications (Amazon S3 User Guide, "Event message structure").

use modunest_core::keys::StagingKey;
use serde_json::Value;

/// The staging keys that an event speaks of. Records of other shapes are noted and passed
/// over: whoever sends them would send them for ever.
pub(super) fn staging_keys(event: &Value) -> Vec<StagingKey> {
    let Some(records) = event.get("Records").and_then(Value::as_array) else {
        tracing::warn!("an event without records");
        return Vec::new();
    };
    records
        .iter()
        .filter_map(|record| {
            let encoded = record.pointer("/s3/object/key").and_then(Value::as_str);
            let key = encoded.and_then(decode).and_then(|key| StagingKey::from_key(&key));
            if key.is_none() {
                tracing::warn!(key = encoded, "an event that names no staging key");
            }
            key
        })
        .collect()
}

/// Form encoding: `+` is a space, `%XX` a byte.
fn decode(encoded: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(encoded.len());
    let mut rest = encoded.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let (high, low) = (rest.next()?, rest.next()?);
                let digit =
                    |byte: u8| char::from(byte).to_digit(16).and_then(|d| u8::try_from(d).ok());
                digit(high)? << 4 | digit(low)?
            }
            other => other,
        });
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use modunest_core::digest::Digest;
    use modunest_core::keys::SessionId;
    use serde_json::json;

    #[test]
    fn keys_are_decoded_and_strangers_passed_over() {
        let key = StagingKey::Upload(SessionId::from_bytes([7; 16]), Digest::of(b"x"));
        let record = |key: &str| json!({"s3": {"object": {"key": key}}});
        let encoded = key.to_string().replace('/', "%2F");
        let event = json!({"Records": [
            record(&key.to_string()), record(&encoded), record("else/where"), record("%zz"), json!({}),
        ]});
        assert_eq!(staging_keys(&event), [key, key]);
        assert_eq!(staging_keys(&json!({"Event": "s3:TestEvent"})), []);
        assert_eq!(decode("a+b%2Bc%C3%A9").as_deref(), Some("a b+cé"));
        assert_eq!(decode("a%2"), None);
    }
}
