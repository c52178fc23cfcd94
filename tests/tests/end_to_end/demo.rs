//! The one command of the README, twice, and a plugin begun, tested and published after it.

use std::process::Command;
use std::time::Duration;

use modunest_tests::agent::sample;
use modunest_tests::process::{Process, run};
use modunest_tests::registry::{Folder, command};
use serde_json::Value;

/// Starts the demo and waits until it has shown its answer.
async fn demo(folder: &Folder) -> (Process, Value) {
    let mut command = command();
    command
        .args(["up", "--demo", "--json", "--port", "0", "--gateway-port", "0", "--samples"])
        .arg(sample("gallery").parent().unwrap())
        .arg("--data")
        .arg(folder.data());
    let mut process = Process::start("demo", command, &folder.logs());
    let started = process.first_value_after_a_build().await;
    (process, started)
}

#[tokio::test]
async fn the_demo_answers_and_a_new_plugin_follows() {
    let folder = Folder::new();
    let (mut process, first) = demo(&folder).await;
    assert_eq!(first["demo"]["status"], 200, "{first:#}");
    let answer = first["demo"]["answer"].as_str().unwrap();
    assert!(answer.contains("<h1> Gallery") && answer.contains("<h2> Dunes at noon"), "{answer}");

    // What the page refers to is there too, made by the other plugin.
    let page = first["demo"]["page"].as_str().unwrap();
    let client = modunest_runtime::http::client().unwrap();
    let html = client.get(page).send().await.unwrap().text().await.unwrap();
    let (_, rest) = html.split_once("src=\"").unwrap();
    let (image, _) = rest.split_once('"').unwrap();
    let image = reqwest::Url::parse(page).unwrap().join(image).unwrap();
    let image = client.get(image).send().await.unwrap();
    assert_eq!(
        (image.status().as_u16(), &image.headers()["content-type"]),
        (200, &"image/png".parse().unwrap())
    );
    assert!(image.bytes().await.unwrap().starts_with(b"\x89PNG"));

    // What is posted to another is kept by the host's store.
    let notes = page.replace("/gallery", "/notes");
    assert_eq!(client.post(&notes).body("buy milk").send().await.unwrap().status(), 201);
    assert_eq!(client.get(&notes).send().await.unwrap().text().await.unwrap(), "1 buy milk\n");

    // An opened picture is an event, which another plugin counts; a guard keeps strangers out.
    let picture = page.replace("/gallery", "/gallery/image/dunes");
    assert_eq!(client.get(picture).send().await.unwrap().status(), 200);
    let visits = page.replace("/gallery", "/visits");
    let counted = async {
        while client.get(&visits).send().await.unwrap().text().await.unwrap() != "1 dunes\n" {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), counted).await.expect("the event arrives");
    let reset = client.post(format!("{visits}/reset")).header("sec-fetch-site", "cross-site");
    assert_eq!(reset.send().await.unwrap().status(), 403);
    assert_eq!(client.post(format!("{visits}/reset")).send().await.unwrap().status(), 200);

    for template in ["service", "page"] {
        begin_test_and_publish(&folder, &first, template);
    }

    assert!(process.terminate().await.success());
    let (mut process, second) = demo(&folder).await;
    assert_eq!(second["demo"]["answer"], first["demo"]["answer"]);
    // Nothing was published anew: the first start's log has all of them.
    let published = process.log_lines();
    assert!(!published.iter().any(|line| line["message"] == "published"), "{published:#?}");
    assert!(process.terminate().await.success());
}

/// `modunest new`, the new plugin's own tests, and `modunest publish`, as the README says.
fn begin_test_and_publish(folder: &Folder, started: &Value, template: &str) {
    let name = format!("demo/new-{template}");
    let made = folder.file(&format!("new-{template}"));
    let mut new = command();
    new.args(["new", &name]).arg(&made).args(["--template", template, "--sdk"]);
    let _made = run(new.arg(sample("gallery").join("../.."))).good();

    // The plugin builds in its own folder, as its author would see it.
    let mut test = Command::new(env!("CARGO"));
    test.args(["test", "--offline"]).current_dir(&made).env_remove("CARGO_TARGET_DIR");
    let tested = run(&mut test).good();
    assert!(tested.stdout.contains("1 passed"), "{}", tested.stdout);

    let mut publish = command();
    publish
        .args(["--json", "publish"])
        .arg(&made)
        .env("MODUNEST_PROFILE", started["demo"]["profile"].as_str().unwrap())
        .env("XDG_CACHE_HOME", folder.file("cache"))
        .env_remove("CARGO_TARGET_DIR")
        .env("CARGO_NET_OFFLINE", "true");
    let published = run(&mut publish).good().json();
    assert_eq!(
        (&published[0]["plugin"], &published[0]["state"]),
        (&name.into(), &"published".into())
    );
}
