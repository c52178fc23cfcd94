//! What a write costs here, on this disk: the figures behind `MAX_INLINE_BYTES`.
//!
//! `cargo run --release -p modunest-local --example measure` prints, for sizes on
//! both sides of the limit, the median and 95th percentile of one writer's
//! `PutObject`, and the rate of sixteen; then the same for DynamoDB's `PutItem`.
#![allow(clippy::print_stdout)]

use std::error::Error;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use aws_credential_types::Credentials;
use aws_sdk_dynamodb::types::{
    AttributeDefinition, AttributeValue, BillingMode, KeySchemaElement, KeyType,
    ScalarAttributeType,
};
use modunest_local::{Config, LocalServices};

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// Sequential writes of each size.
const SEQUENTIAL: usize = 100;
/// Concurrent writers, and the writes of each.
const WRITERS: usize = 16;
const WRITES_EACH: usize = 25;

#[tokio::main]
async fn main() -> Outcome<()> {
    let folder = tempfile::TempDir::new()?;
    let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let config = Config {
        data_dir: Some(folder.path().to_owned()),
        s3_listen: any_port,
        dynamodb_listen: any_port,
        access_key: "measure".into(),
        secret_key: "measure".into(),
        region: "local".into(),
        buckets: vec!["bench".into()],
    };
    let begun = Instant::now();
    let services = LocalServices::start(config, Vec::new()).await?;
    println!("first start          {:>9.1?}", begun.elapsed());
    let credentials = Credentials::new("measure", "measure", None, None, "measure");
    let s3 = aws_sdk_s3::Client::from_conf(
        aws_sdk_s3::config::Builder::new()
            .behavior_version_latest()
            .endpoint_url(services.s3_endpoint())
            .region(aws_sdk_s3::config::Region::new("local"))
            .credentials_provider(credentials.clone())
            .force_path_style(true)
            .http_client(aws_smithy_http_client::Builder::new().build_http())
            .build(),
    );
    let dynamodb = aws_sdk_dynamodb::Client::from_conf(
        aws_sdk_dynamodb::config::Builder::new()
            .behavior_version_latest()
            .endpoint_url(services.dynamodb_endpoint())
            .region(aws_sdk_dynamodb::config::Region::new("local"))
            .credentials_provider(credentials)
            .http_client(aws_smithy_http_client::Builder::new().build_http())
            .build(),
    );
    for size_bytes in [1_000, 16_000, 64_000, 66_000, 1_000_000] {
        let put = |name: String| {
            let s3 = s3.clone();
            async move {
                let body = vec![7_u8; size_bytes];
                s3.put_object().bucket("bench").key(name).body(body.into()).send().await?;
                Outcome::Ok(())
            }
        };
        report(&format!("PutObject {size_bytes:>9}"), put).await?;
    }
    let key = KeySchemaElement::builder().attribute_name("pk").key_type(KeyType::Hash).build()?;
    let attribute = AttributeDefinition::builder()
        .attribute_name("pk")
        .attribute_type(ScalarAttributeType::S)
        .build()?;
    dynamodb
        .create_table()
        .table_name("bench")
        .key_schema(key)
        .attribute_definitions(attribute)
        .billing_mode(BillingMode::PayPerRequest)
        .send()
        .await?;
    let put = |name: String| {
        let dynamodb = dynamodb.clone();
        async move {
            dynamodb
                .put_item()
                .table_name("bench")
                .item("pk", AttributeValue::S(name))
                .send()
                .await?;
            Outcome::Ok(())
        }
    };
    report("PutItem", put).await?;
    services.shutdown().await?;
    Ok(())
}

async fn report<F, Fut>(what: &str, write: F) -> Outcome<()>
where
    F: Fn(String) -> Fut,
    Fut: Future<Output = Outcome<()>> + Send + 'static,
{
    let mut times = Vec::with_capacity(SEQUENTIAL);
    for n in 0..SEQUENTIAL {
        let begun = Instant::now();
        write(format!("{what}/one/{n}")).await?;
        times.push(begun.elapsed());
    }
    times.sort();
    let at =
        |percent: usize| times.get(times.len() * percent / 100).copied().unwrap_or(Duration::ZERO);
    let begun = Instant::now();
    let writers = (0..WRITERS).map(|writer| {
        let writes: Vec<Fut> =
            (0..WRITES_EACH).map(|n| write(format!("{what}/{writer}/{n}"))).collect();
        tokio::spawn(async move {
            for write in writes {
                write.await?;
            }
            Outcome::Ok(())
        })
    });
    for writer in futures_util::future::join_all(writers).await {
        writer??;
    }
    let rate = (WRITERS * WRITES_EACH) as f64 / begun.elapsed().as_secs_f64();
    println!(
        "{what:<20} p50 {:>9.1?}  p95 {:>9.1?}  {WRITERS} writers {rate:>7.0}/s",
        at(50),
        at(95)
    );
    Ok(())
}
