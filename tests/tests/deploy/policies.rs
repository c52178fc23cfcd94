//! Who may do what. The rules hold for every policy in the template; the table says what each
//! role is granted, so that a policy which grows is a line in a diff here.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::template::{list, load, render, resources};

/// A reason is a sentence, not a word.
const REASON_MIN_WORDS: usize = 5;

/// How the table below writes the ARN of the table in use.
const TABLE_ARN: &str = "arn:${AWS::Partition}:dynamodb:${AWS::Region}:${AWS::AccountId}:table/(${RestoredTable} if HasRestoredTable else ${Table})";

/// What every function is granted.
const EVERY_FUNCTION: &[&str] = &[
    "s3:GetObject ${KeysBucket.Arn}/*",
    "s3:GetObject ${PublicBucket.Arn}/bin/*",
    "s3:GetObject ${PublicBucket.Arn}/checkpoint",
    "s3:GetObject ${PublicBucket.Arn}/head",
    "s3:GetObject ${PublicBucket.Arn}/index/*",
    "s3:GetObject ${PublicBucket.Arn}/node/*",
    "s3:GetObject ${PublicBucket.Arn}/tile/*",
    "s3:ListBucket ${PublicBucket.Arn}",
    "s3:ListBucket ${StagingBucket.Arn}",
    // All four sequence: what a publisher waits for does not wait for a schedule.
    "s3:PutObject ${PublicBucket.Arn}/bin/*",
    "s3:PutObject ${PublicBucket.Arn}/checkpoint",
    "s3:PutObject ${PublicBucket.Arn}/head",
    "s3:PutObject ${PublicBucket.Arn}/index/*",
    "s3:PutObject ${PublicBucket.Arn}/node/*",
    "s3:PutObject ${PublicBucket.Arn}/tile/*",
    // What one of them decided, any other may have to carry out.
    "s3:DeleteObject ${StagingBucket.Arn}/bundle/*",
    "s3:GetObject ${StagingBucket.Arn}/bundle/*",
    "s3:PutObject ${StagingBucket.Arn}/bundle/*",
];

/// What those are granted on the table that have no business with users and tokens.
const HALF_TABLE: &[&str] = &[
    "dynamodb:ConditionCheckItem TABLE if ForAllValues:StringLike dynamodb:LeadingKeys head,pending,session#*,plugin#*,org#*,statement#*",
    "dynamodb:DeleteItem TABLE if ForAllValues:StringLike dynamodb:LeadingKeys head,pending,session#*,plugin#*,org#*,statement#*",
    "dynamodb:GetItem TABLE if ForAllValues:StringLike dynamodb:LeadingKeys head,pending,session#*,plugin#*,org#*,statement#*",
    "dynamodb:PutItem TABLE if ForAllValues:StringLike dynamodb:LeadingKeys head,pending,session#*,plugin#*,org#*,statement#*",
    "dynamodb:Query TABLE if ForAllValues:StringLike dynamodb:LeadingKeys head,pending,session#*,plugin#*,org#*,statement#*",
    "dynamodb:UpdateItem TABLE if ForAllValues:StringLike dynamodb:LeadingKeys head,pending,session#*,plugin#*,org#*,statement#*",
];

const NOTES_ARCHIVES: &str =
    "dynamodb:PutItem TABLE if ForAllValues:StringLike dynamodb:LeadingKeys archive#*";

/// The half of the public bucket that only checked archives reach.
const CHECKED: &[&str] = &[
    "s3:GetObject ${PublicBucket.Arn}/blob/*",
    "s3:GetObject ${PublicBucket.Arn}/report/*",
    "s3:PutObject ${PublicBucket.Arn}/blob/*",
    "s3:PutObject ${PublicBucket.Arn}/report/*",
];

/// Uploads, as whoever checks them needs them.
const UPLOADS: &[&str] = &[
    "s3:DeleteObject ${StagingBucket.Arn}/ready/*",
    "s3:DeleteObject ${StagingBucket.Arn}/upload/*",
    "s3:GetObject ${StagingBucket.Arn}/upload/*",
];

const VIA_BOTH: &str = "if StringEquals kms:ViaService dynamodb.${AWS::Region}.${AWS::URLSuffix},s3.${AWS::Region}.${AWS::URLSuffix}";

fn logs(function: &str) -> Vec<String> {
    ["logs:CreateLogStream", "logs:PutLogEvents"]
        .map(|action| format!("{action} ${{{function}Logs.Arn}}"))
        .to_vec()
}

/// Each role's policy and all that it allows.
fn expected() -> Vec<(&'static str, Vec<String>)> {
    let all = |parts: &[&[&str]], more: Vec<String>| -> Vec<String> {
        parts.iter().flat_map(|part| part.iter().map(|&line| line.to_owned())).chain(more).collect()
    };
    let with_logs = |function: &str, lines: &[&str]| -> Vec<String> {
        lines.iter().map(|&line| line.to_owned()).chain(logs(function)).collect()
    };
    let decrypt_both = format!("kms:Decrypt ${{DataKey.Arn}} {VIA_BOTH}");
    let encrypt_both = format!("kms:GenerateDataKey ${{DataKey.Arn}} {VIA_BOTH}");
    vec![
        (
            "ApiPolicy",
            all(
                &[EVERY_FUNCTION, UPLOADS],
                with_logs(
                    "Api",
                    &[
                        "dynamodb:ConditionCheckItem TABLE",
                        "dynamodb:DeleteItem TABLE",
                        "dynamodb:DescribeTable TABLE",
                        "dynamodb:GetItem TABLE",
                        "dynamodb:PutItem TABLE",
                        "dynamodb:Query TABLE",
                        "dynamodb:UpdateItem TABLE",
                        &decrypt_both,
                        &encrypt_both,
                        // Whether an archive is there already. Never s3:PutObject on it.
                        "s3:GetObject ${PublicBucket.Arn}/blob/*",
                        "s3:PutObject ${StagingBucket.Arn}/ready/*",
                        "s3:PutObject ${StagingBucket.Arn}/upload/*",
                    ],
                ),
            ),
        ),
        (
            "FinalizePolicy",
            all(
                &[EVERY_FUNCTION, HALF_TABLE, CHECKED, UPLOADS],
                with_logs(
                    "Finalize",
                    &[
                        NOTES_ARCHIVES,
                        &decrypt_both,
                        &encrypt_both,
                        "sqs:DeleteMessage ${StorageEvents.Arn}",
                        "sqs:GetQueueAttributes ${StorageEvents.Arn}",
                        "sqs:ReceiveMessage ${StorageEvents.Arn}",
                    ],
                ),
            ),
        ),
        (
            "SchedulerPolicy",
            [
                "lambda:InvokeFunction ${SequenceFunction.Arn}",
                "lambda:InvokeFunction ${SweepFunction.Arn}",
                "sqs:SendMessage ${SchedulesDead.Arn}",
            ]
            .map(str::to_owned)
            .to_vec(),
        ),
        (
            "SequencePolicy",
            all(
                &[EVERY_FUNCTION, HALF_TABLE],
                with_logs(
                    "Sequence",
                    &[
                        // The first administrator, made by whoever may invoke it.
                        "dynamodb:GetItem TABLE if ForAllValues:StringLike dynamodb:LeadingKeys user#admin",
                        "dynamodb:PutItem TABLE if ForAllValues:StringLike dynamodb:LeadingKeys bootstrap,user#admin,token#*",
                        &decrypt_both,
                        &encrypt_both,
                        "s3:GetObject ${PublicBucket.Arn}/trust/*",
                        "s3:PutObject ${PublicBucket.Arn}/trust/*snapshot.json",
                        "s3:PutObject ${PublicBucket.Arn}/trust/timestamp.json",
                    ],
                ),
            ),
        ),
        (
            "SweepPolicy",
            all(
                &[EVERY_FUNCTION, HALF_TABLE, CHECKED, UPLOADS],
                with_logs(
                    "Sweep",
                    &[
                        NOTES_ARCHIVES,
                        "dynamodb:Query TABLE/index/due",
                        &decrypt_both,
                        &encrypt_both,
                        "s3:PutObject ${StagingBucket.Arn}/ready/*",
                    ],
                ),
            ),
        ),
    ]
}

/// A condition in one line.
fn condition(statement: &Value) -> String {
    let Some(operators) = statement["Condition"].as_object() else { return String::new() };
    let mut parts: Vec<String> = operators
        .iter()
        .flat_map(|(operator, keys)| {
            keys.as_object().unwrap().iter().map(move |(key, values)| {
                let values: Vec<String> = list(values).into_iter().map(render).collect();
                format!("{operator} {key} {}", values.join(","))
            })
        })
        .collect();
    parts.sort();
    format!(" if {}", parts.join(" and "))
}

/// What a policy allows, one line an action, resource and condition.
pub fn granted(policy: &Value) -> BTreeSet<String> {
    let mut lines = BTreeSet::new();
    for statement in list(&policy["Properties"]["PolicyDocument"]["Statement"]) {
        assert_eq!(statement["Effect"], "Allow", "roles are granted, not denied");
        for action in list(&statement["Action"]) {
            for resource in list(&statement["Resource"]) {
                let resource = render(resource).replace(TABLE_ARN, "TABLE");
                let line = format!("{} {resource}{}", render(action), condition(statement));
                assert!(lines.insert(line.clone()), "granted twice: {line}");
            }
        }
    }
    lines
}

#[test]
fn each_role_may_do_what_its_code_calls_and_nothing_else() {
    let template = load();
    let policies = resources(&template, "AWS::IAM::RolePolicy");
    let expected = expected();
    let names: Vec<&str> = policies.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, expected.iter().map(|(name, _)| *name).collect::<Vec<_>>());
    let mut differences = Vec::new();
    for ((name, policy), (_, lines)) in policies.iter().zip(expected) {
        let role = name.replace("Policy", "Role");
        assert_eq!(policy["Properties"]["RoleName"], json!({"Ref": role}), "{name}");
        let (granted, expected) = (granted(policy), BTreeSet::from_iter(lines));
        differences.extend(granted.difference(&expected).map(|line| format!("{name}: +{line}")));
        differences.extend(expected.difference(&granted).map(|line| format!("{name}: -{line}")));
    }
    assert!(differences.is_empty(), "\n{}\n", differences.join("\n"));
}

/// Every policy document in a resource, however deep.
fn documents(value: &Value) -> Vec<&Value> {
    match value {
        Value::Object(fields) if fields.contains_key("Statement") => vec![value],
        Value::Object(fields) => fields.values().flat_map(documents).collect(),
        Value::Array(values) => values.iter().flat_map(documents).collect(),
        _ => Vec::new(),
    }
}

/// Whether a resource of a statement is anything at all, or too much of something.
fn is_everything(resource: &str) -> bool {
    // What one of our own resources is called, and a part of it.
    let part_of_ours = resource.starts_with("${")
        && resource.matches('*').count() == 1
        && resource.ends_with("/*");
    resource.contains(['*', '?']) && !part_of_ours
}

/// What is wrong with the policies of a template.
fn findings(template: &Value) -> Vec<String> {
    let mut findings = Vec::new();
    for (name, resource) in template["Resources"].as_object().unwrap() {
        let mut add = |text: String| findings.push(format!("{name}: {text}"));
        let reasons = &resource["Metadata"]["ModuNest"]["Reasons"];
        let mut needed = BTreeSet::new();
        for statement in
            documents(&resource["Properties"]).into_iter().flat_map(|d| list(&d["Statement"]))
        {
            let Some(sid) = statement["Sid"].as_str() else {
                add("a statement without Sid".to_owned());
                continue;
            };
            for wide in ["NotAction", "NotResource", "NotPrincipal"] {
                if statement.get(wide).is_some() {
                    add(format!("{sid}: {wide} says what is not meant"));
                }
            }
            let is_allowed = match statement["Effect"].as_str() {
                Some("Allow") => true,
                Some("Deny") => false,
                _ => {
                    add(format!("{sid}: no effect"));
                    continue;
                }
            };
            let actions: Vec<String> = list(&statement["Action"]).into_iter().map(render).collect();
            if actions.is_empty() {
                add(format!("{sid}: no action"));
            }
            if actions.iter().any(|action| action.contains(['*', '?'])) {
                if is_allowed {
                    add(format!("{sid}: allows actions that it does not name"));
                } else {
                    needed.insert(sid.to_owned());
                }
            }
            if list(&statement["Resource"]).into_iter().map(render).any(|r| is_everything(&r)) {
                needed.insert(sid.to_owned());
            }
            let principal = &statement["Principal"];
            let everybody = *principal == "*" || list(&principal["AWS"]).contains(&&json!("*"));
            if is_allowed && everybody {
                add(format!("{sid}: allows everybody"));
            }
            // A service acts for any account that asks it to, unless it must say for which.
            let service = principal["Service"].as_str();
            let bound = condition(statement).to_lowercase();
            let is_confused = service.is_some_and(|service| service != "lambda.amazonaws.com")
                && !bound.contains("aws:sourceaccount")
                && !bound.contains("aws:sourcearn");
            if is_allowed && is_confused {
                add(format!("{sid}: allows a service whoever sends it"));
            }
        }
        let given: BTreeSet<String> =
            reasons.as_object().into_iter().flat_map(|r| r.keys().cloned()).collect();
        for sid in needed.difference(&given) {
            add(format!("{sid}: a \"*\" without a reason"));
        }
        for sid in given.difference(&needed) {
            add(format!("{sid}: a reason for nothing"));
        }
        for sid in &given {
            if reasons[sid].as_str().is_none_or(|r| r.split(' ').count() < REASON_MIN_WORDS) {
                add(format!("{sid}: the reason is not a sentence"));
            }
        }
        for shortcut in ["Policies", "ManagedPolicyArns", "Connectors"] {
            if resource["Properties"].get(shortcut).is_some() || resource.get(shortcut).is_some() {
                add(format!("{shortcut} grants what is not written here"));
            }
        }
    }
    findings
}

#[test]
fn nothing_is_allowed_that_is_not_named_or_has_no_reason() {
    assert_eq!(findings(&load()), Vec::<String>::new());
}

#[test]
fn each_way_to_widen_a_policy_is_found() {
    type Change = fn(&mut Value);
    let first = "/Properties/PolicyDocument/Statement/0";
    let changes: [(&str, &str, Change, &str); 9] = [
        ("ApiPolicy", first, |s| s["Action"] = json!("s3:*"), "that it does not name"),
        ("ApiPolicy", first, |s| s["Action"] = json!(["s3:Get*"]), "that it does not name"),
        ("ApiPolicy", first, |s| s["Resource"] = json!(["*"]), "without a reason"),
        ("ApiPolicy", first, |s| s["Resource"] = json!("arn:aws:s3:::*/*"), "without a reason"),
        ("ApiPolicy", first, |s| s["NotAction"] = json!("iam:PassRole"), "NotAction"),
        ("ApiRole", "", |r| r["Properties"]["ManagedPolicyArns"] = json!([]), "not written here"),
        (
            "PublicBucketPolicy",
            "/Properties/PolicyDocument/Statement/1",
            |s| s["Principal"] = json!("*"),
            "allows everybody",
        ),
        (
            "StorageEventsPolicy",
            first,
            |s| s["Condition"] = json!({"Bool": {"aws:SecureTransport": "true"}}),
            "whoever sends it",
        ),
        (
            "DataKey",
            "/Metadata/ModuNest/Reasons",
            |r| r["Gone"] = json!("it was here once, long ago"),
            "a reason for nothing",
        ),
    ];
    for (resource, place, change, said) in changes {
        let mut template = load();
        change(template["Resources"][resource].pointer_mut(place).unwrap());
        let findings = findings(&template);
        assert!(
            findings.iter().any(|f| f.starts_with(resource) && f.contains(said)),
            "{said}: {findings:?}"
        );
    }
}

#[test]
fn keys_in_kms_sign_for_the_functions_and_do_nothing_else() {
    let template = load();
    let policies = resources(&template, "AWS::IAM::ManagedPolicy");
    let expected = [("HeadKmsKeyPolicy", "HeadKmsKey"), ("LogKmsKeyPolicy", "LogKmsKey")];
    assert_eq!(
        policies.iter().map(|(name, _)| *name).collect::<Vec<_>>(),
        expected.map(|(name, _)| name)
    );
    let signers = ["ApiRole", "FinalizeRole", "SequenceRole", "SweepRole"];
    for ((_, policy), (_, key)) in policies.iter().zip(expected) {
        assert_eq!(policy["Condition"], format!("Has{key}"));
        assert_eq!(policy["Properties"]["Roles"], json!(signers.map(|role| json!({"Ref": role}))));
        let lines = [
            format!("kms:GetPublicKey ${{{key}}}"),
            format!("kms:Sign ${{{key}}} if StringEquals kms:SigningAlgorithm ED25519_SHA_512"),
        ];
        assert_eq!(granted(policy), BTreeSet::from(lines));
    }
}

#[test]
fn only_what_signs_reads_the_signing_key() {
    let template = load();
    let signers = ["ApiRole", "FinalizeRole", "SequenceRole", "SweepRole"]
        .map(|role| json!({"Fn::GetAtt": [role, "Arn"]}));
    let statements =
        list(&template["Resources"]["SigningKeyKey"]["Properties"]["KeyPolicy"]["Statement"]);
    let readers: Vec<_> = statements
        .into_iter()
        .filter(|s| {
            list(&s["Action"]).iter().any(|a| **a == "kms:Decrypt" || **a == "kms:CreateGrant")
        })
        .collect();
    assert_eq!(readers.len(), 1);
    assert_eq!(readers[0]["Principal"]["AWS"], json!(signers));
    let bucket = list(
        &template["Resources"]["KeysBucketPolicy"]["Properties"]["PolicyDocument"]["Statement"],
    );
    let denied = bucket.iter().find(|s| s["Sid"] == "DenyReadingToOthers").unwrap();
    assert_eq!(denied["Condition"]["ArnNotEquals"]["aws:PrincipalArn"], json!(signers));
}

/// Reading says what is there, listing what is not: without it S3 says 403 for both what is
/// absent and what is broken. A list itself nobody gets, since "/" is an object.
#[test]
fn the_cdn_and_nobody_else_reads_the_public_bucket_and_tells_what_is_absent() {
    let template = load();
    let resources = &template["Resources"];
    let policy = &resources["PublicBucketPolicy"]["Properties"]["PolicyDocument"]["Statement"];
    let allowed: Vec<_> = list(policy).into_iter().filter(|s| s["Effect"] == "Allow").collect();
    let arn = json!({"Fn::GetAtt": ["PublicBucket", "Arn"]});
    let objects = json!({"Fn::Sub": "${PublicBucket.Arn}/*"});
    let expected = [(json!("s3:GetObject"), objects), (json!("s3:ListBucket"), arn)];
    assert_eq!(allowed.len(), expected.len());
    let this_cdn =
        "arn:${AWS::Partition}:cloudfront::${AWS::AccountId}:distribution/${Cdn}".to_owned();
    for (statement, (action, resource)) in allowed.into_iter().zip(expected) {
        assert_eq!(statement["Principal"], json!({"Service": "cloudfront.amazonaws.com"}));
        assert_eq!((&statement["Action"], &statement["Resource"]), (&action, &resource));
        let condition = json!({"StringEquals": {"AWS:SourceArn": {"Fn::Sub": this_cdn}}});
        assert_eq!(statement["Condition"], condition);
    }
    let cdn = &resources["Cdn"]["Properties"]["DistributionConfig"];
    assert_eq!(cdn["DefaultRootObject"], "head");
    let queries = &resources["CdnFilesCache"]["Properties"]["CachePolicyConfig"];
    let queries = &queries["ParametersInCacheKeyAndForwardedToOrigin"]["QueryStringsConfig"];
    assert_eq!(queries, &json!({"QueryStringBehavior": "none"}));
}

#[test]
fn nothing_is_reached_without_tls() {
    let template = load();
    for (kind, policy, key) in [
        ("AWS::S3::Bucket", "AWS::S3::BucketPolicy", "Bucket"),
        ("AWS::SQS::Queue", "AWS::SQS::QueuePolicy", "Queues"),
        ("AWS::SNS::Topic", "AWS::SNS::TopicPolicy", "Topics"),
    ] {
        let policies = resources(&template, policy);
        for (name, _) in resources(&template, kind) {
            let denies = policies.iter().any(|(_, policy)| {
                let properties = &policy["Properties"];
                list(&properties[key]).contains(&&json!({"Ref": name}))
                    && list(&properties["PolicyDocument"]["Statement"]).into_iter().any(|s| {
                        s["Effect"] == "Deny"
                            && s["Principal"] == "*"
                            && s["Condition"] == json!({"Bool": {"aws:SecureTransport": "false"}})
                    })
            });
            assert!(denies, "{name} may be spoken to without TLS");
        }
    }
}
