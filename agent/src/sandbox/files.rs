//! Files, by Landlock: what is not named cannot be opened.

use std::path::Path;

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, BitFlags, PathBeneath, PathFd, Ruleset,
    RulesetAttr as _, RulesetCreated, RulesetCreatedAttr as _, RulesetStatus, Scope,
};

use super::{SandboxError, SandboxPolicy};

/// What any library needs: other libraries, what finds them, and the time zones. Each only
/// where it is there.
const SYSTEM: [&str; 9] = [
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/usr/local/lib",
    "/etc/ld.so.cache",
    "/usr/share/zoneinfo",
    "/etc/localtime",
    "/dev/urandom",
];

/// The newest interface of Landlock whose rights are known here. The kernel enforces those that
/// it knows; what older ones lack, the filter of system calls denies.
const NEWEST: ABI = ABI::V7;

pub(super) fn confine(policy: &SandboxPolicy) -> Result<(), SandboxError> {
    let refused = |error: landlock::RulesetError| SandboxError::Files(error.to_string());
    let mut rules = Ruleset::default()
        .handle_access(AccessFs::from_all(NEWEST))
        .and_then(|rules| rules.handle_access(AccessNet::from_all(NEWEST)))
        .and_then(|rules| rules.scope(Scope::from_all(NEWEST)))
        .and_then(Ruleset::create)
        .map_err(refused)?;
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    for path in SYSTEM.map(Path::new).into_iter().filter(|path| path.exists()) {
        rules = allow(rules, path, read | AccessFs::Execute)?;
    }
    for path in &policy.read {
        rules = allow(rules, path, read)?;
    }
    // Device files stay what they are: nobody needs to make any.
    let write = AccessFs::from_all(NEWEST)
        & !(AccessFs::Execute | AccessFs::MakeChar | AccessFs::MakeBlock | AccessFs::IoctlDev);
    for path in &policy.write {
        rules = allow(rules, path, write)?;
    }
    match rules.restrict_self().map_err(refused)?.ruleset {
        RulesetStatus::NotEnforced => Err(SandboxError::Files("the kernel does not".to_owned())),
        RulesetStatus::FullyEnforced | RulesetStatus::PartiallyEnforced => Ok(()),
    }
}

fn allow(
    rules: RulesetCreated,
    path: &Path,
    access: BitFlags<AccessFs>,
) -> Result<RulesetCreated, SandboxError> {
    let refused = |reason: String| SandboxError::Path { path: path.to_owned(), reason };
    let access = if path.is_dir() { access } else { access & AccessFs::from_file(NEWEST) };
    let opened = PathFd::new(path).map_err(|error| refused(error.to_string()))?;
    rules.add_rule(PathBeneath::new(opened, access)).map_err(|error| refused(error.to_string()))
}
