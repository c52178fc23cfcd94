//! Every shell of the read side, prepared with the same objects.

use modunest_tests::site::{Server, Store};
use modunest_tests::workerd::{Setup, Worker};
use url::Url;

use crate::objects::{ORIGIN, Objects, PUBLIC_URL, discovery, key};

/// The native shell, with the bucket behind it.
pub struct Native {
    pub store: Store,
    pub server: Server,
}

impl Native {
    pub async fn start(objects: &Objects, api: Option<Url>) -> Native {
        let store = Store::start().await;
        for (key, content) in objects.stored() {
            store.put(&key, content).await;
        }
        let server = Server::native(&store, api, discovery()).await;
        Native { store, server }
    }

    pub async fn stop(self) {
        self.server.stop().await;
        self.store.stop().await;
    }
}

/// A worker with the registry's settings, and nothing to read from yet.
pub fn worker(api: Option<&Url>) -> Setup {
    Setup::new()
        .var("REGISTRY_ORIGIN", ORIGIN)
        .var("REGISTRY_KEYS", key())
        .var("PUBLIC_URL", PUBLIC_URL)
        .var("API_URL", api.map_or(String::new(), Url::to_string))
        .var("ORIGIN_URL", "")
        .var("SECOND_ORIGIN_URL", "")
        .secret("COUNT_TOKEN", "mnt_none")
}

/// The worker over R2.
pub async fn worker_over_r2(objects: &Objects, api: Option<&Url>) -> Worker {
    let setup = worker(api);
    objects.stored().fold(setup, |setup, (key, content)| setup.object(&key, content)).start().await
}

/// The worker over an HTTP origin.
pub async fn worker_over_http(origin: &Url, api: Option<&Url>) -> Worker {
    worker(api).var("ORIGIN_URL", origin.as_str()).start().await
}
