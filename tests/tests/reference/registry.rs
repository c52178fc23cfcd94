//! The log of a real registry.

use modunest_core::keys::ObjectKey;
use modunest_tests::fixtures::Plugin;
use modunest_tests::registry::{ORIGIN, Registry};
use modunest_tests::snapshot::object;
use modunest_tlog::{SignedCheckpoint, TreeHash, VerifyingKey};

use crate::reader::{read, refusal};

/// The log's key: the first that the registry names.
async fn log_key(registry: &Registry) -> VerifyingKey {
    registry.keys().await.swap_remove(0)
}

async fn checkpoint(registry: &Registry) -> (u64, TreeHash) {
    let bytes = object(&registry.nobody(), ObjectKey::Checkpoint).await;
    let signed = SignedCheckpoint::verify(&bytes, ORIGIN, &[log_key(registry).await]).unwrap();
    (signed.checkpoint.size, signed.checkpoint.root)
}

#[tokio::test]
async fn each_publish_continues_the_log() {
    let registry = Registry::start().await;
    let publisher = registry.publisher("acme").await;
    let mut earlier = vec![checkpoint(&registry).await];
    for version in ["1.0.0", "1.1.0", "2.0.0"] {
        publisher.publish(&Plugin::new("acme/one", version).pack()).await;
        earlier.push(checkpoint(&registry).await);
    }
    publisher.yank("acme/one", "1.1.0", true).await.unwrap();
    let (size, root) = checkpoint(&registry).await;
    assert!(earlier.windows(2).all(|two| two[0].0 < two[1].0), "{earlier:?}");

    let (url, key) = (&registry.started.url, log_key(&registry).await);
    let said = read(url, &key, &earlier).await.good().stdout;
    let expected = format!("{ORIGIN}: size {size}, root {root}: ");
    assert!(said.starts_with(&expected), "{said}");
    assert!(said.ends_with(&format!("{size} proven one by one, 4 earlier sizes consistent\n")));

    // A log that was never this one's.
    earlier[2].1 = earlier[1].1;
    let said = refusal(url, &key, &earlier).await;
    assert!(said.contains(" is no prefix of size "), "{said}");
}
