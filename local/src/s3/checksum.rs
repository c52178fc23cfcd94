//! Digests of an upload: computed while it streams, compared before it is kept.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::HeaderMap;
use s3s::checksum::ChecksumHasher;
use s3s::crypto::{Checksum as _, Crc32, Crc32c, Crc64Nvme, Md5, Sha1, Sha256};
use s3s::dto::{Checksum, PutObjectInput};
use s3s::{S3Result, s3_error};

/// The checksum kinds of S3. An object has exactly one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Algorithm {
    Crc32,
    Crc32c,
    Crc64Nvme,
    Sha1,
    Sha256,
}

impl Algorithm {
    const ALL: [Self; 5] = [Self::Crc32, Self::Crc32c, Self::Crc64Nvme, Self::Sha1, Self::Sha256];

    /// The name in header names, in lower case, and in the index.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Crc32 => "crc32",
            Self::Crc32c => "crc32c",
            Self::Crc64Nvme => "crc64nvme",
            Self::Sha1 => "sha1",
            Self::Sha256 => "sha256",
        }
    }

    pub(super) fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| name.eq_ignore_ascii_case(algorithm.as_str()))
    }

    fn header(self) -> String {
        format!("x-amz-checksum-{}", self.as_str())
    }
}

/// Puts a checksum into the field of an output that its algorithm has.
pub(super) fn as_fields(algorithm: &str, value: String) -> Checksum {
    let mut fields = Checksum::default();
    let field = match Algorithm::parse(algorithm) {
        Some(Algorithm::Crc32) => &mut fields.checksum_crc32,
        Some(Algorithm::Crc32c) => &mut fields.checksum_crc32c,
        Some(Algorithm::Crc64Nvme) => &mut fields.checksum_crc64nvme,
        Some(Algorithm::Sha1) => &mut fields.checksum_sha1,
        Some(Algorithm::Sha256) => &mut fields.checksum_sha256,
        None => return fields,
    };
    *field = Some(value);
    fields
}

/// Copies the fields of a [`Checksum`] into an output that has the same ones.
macro_rules! fill_checksum {
    ($output:expr, $fields:expr) => {{
        let fields: s3s::dto::Checksum = $fields;
        $output.checksum_crc32 = fields.checksum_crc32;
        $output.checksum_crc32c = fields.checksum_crc32c;
        $output.checksum_crc64nvme = fields.checksum_crc64nvme;
        $output.checksum_sha1 = fields.checksum_sha1;
        $output.checksum_sha256 = fields.checksum_sha256;
        $output.checksum_type =
            Some(s3s::dto::ChecksumType::from_static(s3s::dto::ChecksumType::FULL_OBJECT));
    }};
}
pub(super) use fill_checksum;

/// What the client said about its bytes, and the digests that will tell.
pub(super) struct Verifier {
    md5: Md5,
    hasher: ChecksumHasher,
    algorithm: Algorithm,
    declared: Option<String>,
    declared_md5: Option<Vec<u8>>,
    declared_bytes: u64,
    seen_bytes: u64,
}

/// What an upload turned out to be.
#[derive(Debug)]
pub(super) struct Verified {
    pub(super) etag: String,
    pub(super) algorithm: Algorithm,
    pub(super) checksum: String,
    pub(super) size_bytes: u64,
}

impl Verifier {
    pub(super) fn new(
        input: &PutObjectInput,
        headers: &HeaderMap,
        declared_bytes: u64,
    ) -> S3Result<Self> {
        let in_header = [
            (Algorithm::Crc32, &input.checksum_crc32),
            (Algorithm::Crc32c, &input.checksum_crc32c),
            (Algorithm::Crc64Nvme, &input.checksum_crc64nvme),
            (Algorithm::Sha1, &input.checksum_sha1),
            (Algorithm::Sha256, &input.checksum_sha256),
        ];
        let mut given = in_header
            .into_iter()
            .filter_map(|(algorithm, value)| value.clone().map(|value| (algorithm, Some(value))));
        let first = given.next();
        if given.next().is_some() {
            return Err(s3_error!(InvalidRequest, "Expecting a single x-amz-checksum- header"));
        }
        // A checksum that follows the body is announced by its header's name.
        let in_trailer =
            headers.get("x-amz-trailer").and_then(|value| value.to_str().ok()).and_then(|name| {
                Algorithm::ALL.into_iter().find(|a| name.trim().eq_ignore_ascii_case(&a.header()))
            });
        let (algorithm, declared) = match (first, in_trailer) {
            (Some(_), Some(_)) => {
                return Err(s3_error!(InvalidRequest, "Expecting a single x-amz-checksum- header"));
            }
            (Some(given), None) => given,
            (None, Some(algorithm)) => (algorithm, None),
            // What S3 computes when nothing is asked for.
            (None, None) => (Algorithm::Crc64Nvme, None),
        };
        let declared_md5 = match input.content_md5.as_deref() {
            None => None,
            Some(text) => {
                Some(STANDARD.decode(text).ok().filter(|digest| digest.len() == 16).ok_or_else(
                    || s3_error!(InvalidDigest, "The Content-MD5 you specified is not valid."),
                )?)
            }
        };
        let mut hasher = ChecksumHasher::default();
        match algorithm {
            Algorithm::Crc32 => hasher.crc32 = Some(Crc32::new()),
            Algorithm::Crc32c => hasher.crc32c = Some(Crc32c::new()),
            Algorithm::Crc64Nvme => hasher.crc64nvme = Some(Crc64Nvme::new()),
            Algorithm::Sha1 => hasher.sha1 = Some(Sha1::new()),
            Algorithm::Sha256 => hasher.sha256 = Some(Sha256::new()),
        }
        Ok(Self {
            md5: Md5::new(),
            hasher,
            algorithm,
            declared,
            declared_md5,
            declared_bytes,
            seen_bytes: 0,
        })
    }

    /// Takes the next bytes, and refuses more than were declared.
    pub(super) fn update(&mut self, bytes: &[u8]) -> S3Result<()> {
        self.seen_bytes += bytes.len() as u64;
        if self.seen_bytes > self.declared_bytes {
            return Err(s3_error!(IncompleteBody, "The body is longer than its Content-Length"));
        }
        self.md5.update(bytes);
        self.hasher.update(bytes);
        Ok(())
    }

    /// Compares with everything declared. `trailers` are the headers that followed the body.
    pub(super) fn finish(self, trailers: Option<&HeaderMap>) -> S3Result<Verified> {
        if self.seen_bytes != self.declared_bytes {
            return Err(s3_error!(IncompleteBody, "The body is shorter than its Content-Length"));
        }
        let md5 = self.md5.finalize();
        if self.declared_md5.is_some_and(|declared| declared != md5) {
            return Err(s3_error!(
                BadDigest,
                "The Content-MD5 you specified did not match what we received."
            ));
        }
        let fields = self.hasher.finalize();
        let checksum = match self.algorithm {
            Algorithm::Crc32 => fields.checksum_crc32,
            Algorithm::Crc32c => fields.checksum_crc32c,
            Algorithm::Crc64Nvme => fields.checksum_crc64nvme,
            Algorithm::Sha1 => fields.checksum_sha1,
            Algorithm::Sha256 => fields.checksum_sha256,
        }
        .ok_or_else(|| s3_error!(InternalError, "No checksum was computed"))?;
        let in_trailer = trailers
            .and_then(|trailers| trailers.get(self.algorithm.header()))
            .map(|value| value.to_str().unwrap_or_default().to_owned());
        if [self.declared, in_trailer].into_iter().flatten().any(|declared| declared != checksum) {
            return Err(s3_error!(
                BadDigest,
                "The {} you specified did not match the calculated checksum.",
                self.algorithm.header()
            ));
        }
        Ok(Verified {
            etag: md5.iter().map(|byte| format!("{byte:02x}")).collect(),
            algorithm: self.algorithm,
            checksum,
            size_bytes: self.seen_bytes,
        })
    }
}
