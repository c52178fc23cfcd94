//! What every shell is prepared with.

use std::collections::BTreeMap;

use modunest_core::api::{Discovery, PROTOCOL_VERSION};
use modunest_core::digest::Digest;
use modunest_core::keys::ObjectKey;
use modunest_tests::registry::signing_key;
use modunest_tests::site::noise;

/// The registry's name.
pub const ORIGIN: &str = "contract.example";
/// Where its readers think it is.
pub const PUBLIC_URL: &str = "https://plugins.contract.example/";

/// An object with a name of its own in the tables.
pub struct Object {
    /// `None` for what is no file, and for what is not there.
    pub key: Option<ObjectKey>,
    pub content: Vec<u8>,
}

impl Object {
    pub fn digest(&self) -> Digest {
        Digest::of(&self.content)
    }
}

pub struct Objects(BTreeMap<&'static str, Object>);

impl Objects {
    pub fn new() -> Objects {
        let mut objects = BTreeMap::new();
        let mut add = |name, key: Option<fn(Digest) -> ObjectKey>, content: Vec<u8>| {
            let key = key.map(|key| key(Digest::of(&content)));
            objects.insert(name, Object { key, content });
        };
        let line = "0 acme/gallery 1.4.2 0123456789abcdef, a line that comes again and again\n";
        add("small", Some(ObjectKey::Blob), noise(10_000));
        add("nothing", Some(ObjectKey::Blob), Vec::new());
        // One mebibyte is kept in memory by the native shell, and three are not.
        add("mebibyte", Some(ObjectKey::Blob), noise(1024 * 1024));
        add("large", Some(ObjectKey::Blob), noise(3 * 1024 * 1024));
        add("node", Some(ObjectKey::Node), noise(2048));
        add("bin", Some(ObjectKey::Bin), line.repeat(30).into_bytes());
        add("index", Some(ObjectKey::Index), line.repeat(200).into_bytes());
        add("report", Some(ObjectKey::Report), br#"{"findings":[],"scanner":1}"#.repeat(60));
        add("head", Some(|_| ObjectKey::Head), b"modunest/head/v1\n{\"epoch\":7}\n".to_vec());
        add("absent", None, b"nobody has this".to_vec());
        let discovery = discovery();
        add("discovery", None, serde_json::to_vec_pretty(&discovery).unwrap());
        add("home", None, modunest_edge::plan::home_page(&discovery).into_bytes());
        Objects(objects)
    }

    pub fn get(&self, name: &str) -> &Object {
        self.0.get(name).unwrap_or_else(|| panic!("no object is called {name}"))
    }

    /// Everything that is in the bucket.
    pub fn stored(&self) -> impl Iterator<Item = (ObjectKey, &[u8])> {
        self.0.values().filter_map(|object| Some((object.key?, object.content.as_slice())))
    }
}

/// The registry's key, as text.
pub fn key() -> String {
    signing_key(ORIGIN, 1).verifying_key().to_string()
}

pub fn discovery() -> Discovery {
    Discovery {
        protocols: vec![PROTOCOL_VERSION],
        origin: ORIGIN.to_owned(),
        api: format!("{PUBLIC_URL}v1/"),
        files: PUBLIC_URL.to_owned(),
        keys: vec![key()],
    }
}
