//! Our side: the native shell over the embedded S3, in a process of its own.

use std::fs;
use std::io::Read as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use modunest_core::api::{Discovery, PROTOCOL_VERSION};
use modunest_core::digest::Digest;
use modunest_core::keys::ObjectKey;
use modunest_edge::native::{Config, Downloads, MEMORY_CACHE_BYTES, router, serve};
use modunest_local::LocalServices;
use modunest_runtime::aws::Settings;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use url::Url;

use crate::error::Error;
use crate::process;

/// Size of the index file.
pub const INDEX_BYTES: usize = 4 * 1024;
/// Size of the blob.
pub const BLOB_BYTES: usize = 1024 * 1024;

const BUCKET: &str = "public";
const WORD: &str = "bench";

/// Where the read side answers, and what it has.
#[derive(Debug, Serialize, Deserialize)]
pub struct Site {
    /// Address and port.
    pub address: String,
    /// Path of the index file.
    pub index: String,
    /// Path of the blob.
    pub blob: String,
}

impl Site {
    /// Writes what it has as files, at their paths below a folder.
    pub fn write(&self, root: &Path) -> Result<(), Error> {
        for (path, size) in [(&self.index, INDEX_BYTES), (&self.blob, BLOB_BYTES)] {
            let file = root.join(path.trim_start_matches('/'));
            let parent = file.parent().unwrap_or(root);
            fs::create_dir_all(parent).map_err(Error::io(parent))?;
            fs::write(&file, bytes(size)).map_err(Error::io(&file))?;
        }
        Ok(())
    }
}

/// Serves until standard input closes, and tells `api` of downloads.
pub fn run(api: &Url) -> Result<(), Error> {
    modunest_runtime::logging::init();
    // As many threads as processors: one, when pinned, as nginx has one worker.
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(threads)
        .enable_all()
        .build()
        .map_err(|source| Error::Io { what: "threads".to_owned(), source })?;
    runtime.block_on(Box::pin(start_and_serve(api)))
}

async fn start_and_serve(api: &Url) -> Result<(), Error> {
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let services = LocalServices::start(
        modunest_local::Config {
            data_dir: None,
            s3_listen: any,
            dynamodb_listen: any,
            access_key: WORD.to_owned(),
            secret_key: WORD.to_owned(),
            region: WORD.to_owned(),
            buckets: vec![BUCKET.to_owned()],
        },
        Vec::new(),
    )
    .await
    .map_err(Error::wrong("the embedded services"))?;
    let aws = Settings {
        region: WORD.to_owned(),
        access_key_id: WORD.to_owned(),
        secret_access_key: WORD.to_owned(),
        session_token: None,
        s3_endpoint: Some(services.s3_endpoint()),
        dynamodb_endpoint: None,
        kms_endpoint: None,
    };
    let (index, blob) = (bytes(INDEX_BYTES), bytes(BLOB_BYTES));
    let keys = [ObjectKey::Index(Digest::of(&index)), ObjectKey::Blob(Digest::of(&blob))];
    let s3 = modunest_runtime::aws::s3(&aws);
    for (key, content) in keys.iter().zip([index, blob]) {
        let put = s3.put_object().bucket(BUCKET).key(key.to_string()).body(content.into());
        put.send().await.map_err(Error::wrong("an object for the read side"))?;
    }
    let downloads = Downloads::start(api.clone(), WORD.to_owned());
    let downloads = downloads.map_err(Error::wrong("the read side"))?;
    let config = Config {
        aws,
        public_bucket: BUCKET.to_owned(),
        api_origin: None,
        discovery: Discovery {
            protocols: vec![PROTOCOL_VERSION],
            origin: "bench.modunest".to_owned(),
            api: "http://127.0.0.1/v1/".to_owned(),
            files: "http://127.0.0.1/".to_owned(),
            keys: Vec::new(),
        },
        downloads: Some(downloads.clone()),
        memory_cache_bytes: MEMORY_CACHE_BYTES,
    };
    let router = router(config).map_err(Error::wrong("the read side"))?;
    let socket = |source| Error::Io { what: "a socket".to_owned(), source };
    let listener = TcpListener::bind(any).await.map_err(socket)?;
    let address = listener.local_addr().map_err(socket)?.to_string();
    let [index, blob] = keys.map(|key| key.path());
    process::answer(&Site { address, index, blob })?;
    let closed = async {
        let closed = tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()));
        // However it ended, nobody is there any more.
        let _end = closed.await;
    };
    serve(listener, router, closed).await.map_err(socket)?;
    downloads.stop().await;
    services.shutdown().await.map_err(Error::wrong("the embedded services"))
}

/// Bytes without a pattern (xorshift32; G. Marsaglia, "Xorshift RNGs", 2003).
pub fn bytes(size: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_u32;
    let next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_le_bytes()[0]
    };
    std::iter::repeat_with(next).take(size).collect()
}
