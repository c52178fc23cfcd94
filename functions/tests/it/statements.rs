//! Yanks.

use modunest_core::api::StatementResponse;
use modunest_core::problem::Code;
use modunest_core::statement::{Link, SignedStatement, Statement, Status, Yank};
use modunest_tlog::SigningKey;
use serde_json::Value;

use crate::package::package;
use crate::registry::Registry;

fn yank(link: Link, version: &str, yanked: bool, key: &SigningKey) -> SignedStatement {
    Statement::Yank(Yank {
        plugin: "demo/markdown".parse().unwrap(),
        version: version.parse().unwrap(),
        sequence: link.sequence,
        previous: link.previous,
        yanked,
        reason: Some("broken tables".into()),
    })
    .sign(key)
    .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_release_is_yanked_and_brought_back() {
    let registry = Registry::start().await;
    let publisher = registry.publisher("demo").await;
    let release = package("demo/markdown", "1.0.0", Link::FIRST);
    registry.publish_ok(&publisher, &release).await;
    let signed = release.sign(&publisher.key);
    let status = async || {
        registry.plugin_state("demo/markdown").await.releases[&"1.0.0".parse().unwrap()]
            .status
            .clone()
    };
    let send = async |statement: &SignedStatement| -> StatementResponse {
        let body: Value = Registry::publish_body(statement);
        registry.ok("POST", "/v1/statements", &publisher.token, Some(&body)).await
    };
    let refused = async |statement: &SignedStatement| {
        let body = Registry::publish_body(statement);
        registry.refused("POST", "/v1/statements", Some(&publisher.token), Some(&body)).await.code
    };

    let first = yank(signed.next_link(), "1.0.0", true, &publisher.key);
    let answer = send(&first).await;
    assert_eq!((answer.statement, answer.epoch), (first.digest(), registry.head().await.epoch));
    assert_eq!(status().await, Status::Yanked { reason: Some("broken tables".into()) });
    let back = yank(first.next_link(), "1.0.0", false, &publisher.key);
    send(&back).await;
    assert_eq!(status().await, Status::Active);
    // Again, long after: the answer of then, and nothing new.
    assert_eq!(send(&first).await, answer);
    assert_eq!(status().await, Status::Active);

    assert_eq!(
        refused(&yank(signed.next_link(), "1.0.0", false, &publisher.key)).await,
        Code::ChainConflict
    );
    assert_eq!(
        refused(&yank(back.next_link(), "9.0.0", true, &publisher.key)).await,
        Code::NotFound
    );
    let stranger = SigningKey::from_seed("demo".parse().unwrap(), &[6; 32]);
    assert_eq!(
        refused(&yank(back.next_link(), "1.0.0", true, &stranger)).await,
        Code::InvalidSignature
    );
    assert_eq!(refused(&signed).await, Code::InvalidStatement);

    // Two at once behind the same statement: one gets in, the other is told why not.
    let one = yank(back.next_link(), "1.0.0", true, &publisher.key);
    let other = yank(back.next_link(), "1.0.0", false, &publisher.key);
    let (body_one, body_other) = (Registry::publish_body(&one), Registry::publish_body(&other));
    let token = Some(publisher.token.as_str());
    let (a, b) = tokio::join!(
        registry.call("POST", "/v1/statements", token, Some(&body_one)),
        registry.call("POST", "/v1/statements", token, Some(&body_other)),
    );
    let mut statuses = [a.0.as_u16(), b.0.as_u16()];
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 409], "{} {}", a.1, b.1);
    assert_eq!(registry.plugin_state("demo/markdown").await.next.sequence, 5);
    registry.stop().await;
}
