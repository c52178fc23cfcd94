//! What the code asks of AWS against what its roles allow, over all functions: an operation that
//! nobody is granted fails here and not in an account, and a grant that no code uses goes.

use std::collections::BTreeSet;
use std::path::Path;

use super::policies::granted;
use super::template::{load, resources, root};

/// Operations of the SDK, and what they need. Those with nothing are for one machine, where no
/// template makes the table. HeadBucket needs `ListBucket`; so does telling that an object is
/// absent (S3 User Guide, "Required permissions for S3 API operations"). A transaction needs what
/// its parts need (DynamoDB Developer Guide, "Using IAM with transactions").
const OPERATIONS: &[(&str, &[&str])] = &[
    ("copy_object", &["s3:GetObject", "s3:PutObject"]),
    ("create_table", &[]),
    ("delete_item", &["dynamodb:DeleteItem"]),
    ("delete_objects", &["s3:DeleteObject"]),
    ("describe_table", &["dynamodb:DescribeTable"]),
    ("get_item", &["dynamodb:GetItem"]),
    ("get_object", &["s3:GetObject", "s3:ListBucket"]),
    ("get_public_key", &["kms:GetPublicKey"]),
    ("head_bucket", &["s3:ListBucket"]),
    ("head_object", &["s3:GetObject", "s3:ListBucket"]),
    ("put_item", &["dynamodb:PutItem"]),
    ("put_object", &["s3:PutObject"]),
    ("query", &["dynamodb:Query"]),
    ("sign", &["kms:Sign"]),
    (
        "transact_write_items",
        &[
            "dynamodb:ConditionCheckItem",
            "dynamodb:DeleteItem",
            "dynamodb:PutItem",
            "dynamodb:UpdateItem",
        ],
    ),
    ("update_item", &["dynamodb:UpdateItem"]),
    ("update_time_to_live", &[]),
];

/// What clients are called in the code.
const CLIENTS: [&str; 2] = ["client", "presigner"];

/// The Rust sources below a folder, one after the other.
pub fn sources(folder: &Path) -> String {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries
        .map(|path| match path.is_dir() {
            true => sources(&path),
            false if path.extension().is_some_and(|e| e == "rs") => {
                std::fs::read_to_string(&path).unwrap()
            }
            false => String::new(),
        })
        .collect()
}

/// The methods that are called on a client without arguments, as the SDK's operations are.
fn operations(text: &str) -> BTreeSet<String> {
    let called = |rest: &str| {
        let method = rest.trim_start().strip_prefix('.')?;
        let (method, _) = method.split_once("()")?;
        let is_name = method.chars().all(|c| c.is_ascii_lowercase() || c == '_');
        (is_name && method != "clone").then(|| method.to_owned())
    };
    CLIENTS.iter().flat_map(|client| text.split(client).skip(1).filter_map(called)).collect()
}

#[test]
fn what_is_called_is_granted_and_what_is_granted_is_called() {
    let called = operations(&sources(&root().join("functions/src")));
    let known: BTreeSet<String> = OPERATIONS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(called, known, "called, and known here with what it needs");
    let needed: BTreeSet<String> =
        OPERATIONS.iter().flat_map(|(_, actions)| *actions).map(|&a| a.to_owned()).collect();
    let template = load();
    // What decrypts table and buckets is called by DynamoDB and S3, not by the code.
    let called = ["dynamodb:", "s3:", "kms:Sign", "kms:GetPublicKey"];
    let granted: BTreeSet<String> = ["AWS::IAM::RolePolicy", "AWS::IAM::ManagedPolicy"]
        .iter()
        .flat_map(|kind| resources(&template, kind))
        .flat_map(|(_, policy)| granted(policy))
        .map(|line| line.split(' ').next().unwrap().to_owned())
        .filter(|action| called.iter().any(|prefix| action.starts_with(prefix)))
        .collect();
    assert_eq!(granted, needed);
}

#[test]
fn operations_are_found_however_a_call_is_broken() {
    let text = "self.client.get_item().x()\nself\n    .client\n    .query()\npresigner: s3.clone(),\nclient.clone()\n";
    assert_eq!(operations(text), BTreeSet::from(["get_item".to_owned(), "query".to_owned()]));
}
