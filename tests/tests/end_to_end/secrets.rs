//! Secrets stay out of logs and out of files that others read.

use std::os::unix::fs::PermissionsExt as _;

use modunest_core::authorise::Scope;
use modunest_core::publish::State;
use modunest_core::statement::Link;
use modunest_tests::agent::Host;
use modunest_tests::fixtures::Plugin;
use modunest_tests::registry::{Folder, Registry};

#[tokio::test]
async fn no_secret_is_ever_logged() {
    let folder = Folder::new();
    // Everything that is ever logged, also what a curious operator would turn on.
    let filter = [("MODUNEST_LOG", "trace")];
    let mut registry = Registry::start_in(&folder, &filter).await;
    let publisher = registry.publisher("acme").await;
    let token = registry.token(&[Scope::Publish]).await.token;
    let package = Plugin::new("acme/one", "1.0.0").route("/one").pack();
    let opened = publisher.open(&publisher.sign(&package, Link::FIRST)).await.unwrap();
    let upload = &opened.uploads[0];
    let wrong = vec![0; package.archive.len()];
    assert_eq!(publisher.upload(upload, wrong).await.status, 400);
    publisher.upload(upload, package.archive.clone()).await;
    let view = publisher.follow(opened.session.unwrap()).await;
    assert_eq!(view.state, State::Published);
    let wrong = registry.nobody().with_token(Some(format!("{token}x")));
    wrong.answer(reqwest::Method::GET, "/v1/whoami", None::<&()>).await;
    let host = Host::of(&registry).await.wants("acme/one", "^1");
    drop(host.start().await);
    registry.process.terminate().await;

    let file = |name: &str| {
        let text = std::fs::read_to_string(folder.data().join(name)).unwrap();
        text.trim().to_owned()
    };
    let signature = upload.url.split("X-Amz-Signature=").nth(1).unwrap();
    let secrets = [
        ("the administrator's token", file("admin.token")),
        ("another token", token),
        ("the secret of S3", file("s3.secret")),
        ("the log's key", file("log.key")),
        ("the head's key", file("head.key")),
        ("the key of the registry's statements", file("statement.key")),
        ("a publisher's key", publisher.key.expose()),
        ("a presigned URL's signature", signature.split('&').next().unwrap().to_owned()),
    ];
    let logs = [registry.process.log(), registry.process.output(), host.whole_log()];
    assert!(logs[0].len() > 1000, "there is something to search");
    for (what, secret) in &secrets {
        // A key's text is `PRIVATE+KEY+name+hash+secret`. The secret is base64, so it may
        // hold a `+` of its own.
        let core = match secret.strip_prefix("PRIVATE+KEY+") {
            Some(rest) => rest.splitn(3, '+').nth(2).unwrap(),
            None => secret,
        };
        assert!(core.len() >= 20, "{what}");
        for log in &logs {
            let line = log.lines().find(|line| line.contains(core));
            assert_eq!(line, None, "{what} is in a log");
        }
    }
}

#[tokio::test]
async fn what_the_registry_keeps_is_its_owners() {
    let registry = Registry::start().await;
    let data = registry.folder.data();
    let mode =
        |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&data), 0o700);
    for secret in ["admin.token", "s3.secret", "log.key", "head.key", "statement.key"] {
        assert_eq!(mode(&data.join(secret)), 0o600, "{secret}");
    }
}
