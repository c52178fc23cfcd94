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
/// it knows. What older ones lack, the filter of system calls denies: to empty a file that may
/// only be read (before 3), sockets (before 4), requests to devices (before 5), signals to others
/// (before 6). Before 2, no file can be moved to another folder.
pub(super) const NEWEST: ABI = ABI::V7;

/// Confines this process to what the policy names, by the rights of this interface or of an older
/// one that the kernel has.
pub(super) fn confine(policy: &SandboxPolicy, newest: ABI) -> Result<(), SandboxError> {
    let refused = |error: landlock::RulesetError| SandboxError::Files(error.to_string());
    let (network, scopes) = (AccessNet::from_all(newest), Scope::from_all(newest));
    let mut rules =
        Ruleset::default().handle_access(AccessFs::from_all(newest)).map_err(refused)?;
    // Interfaces without any refuse to be asked for none.
    if !network.is_empty() {
        rules = rules.handle_access(network).map_err(refused)?;
    }
    if !scopes.is_empty() {
        rules = rules.scope(scopes).map_err(refused)?;
    }
    let mut rules = rules.create().map_err(refused)?;
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    for path in SYSTEM.map(Path::new).into_iter().filter(|path| path.exists()) {
        rules = allow(rules, path, read | AccessFs::Execute, newest)?;
    }
    for path in &policy.read {
        rules = allow(rules, path, read, newest)?;
    }
    // Device files stay what they are: nobody needs to make any.
    let write = AccessFs::from_all(newest)
        & !(AccessFs::Execute | AccessFs::MakeChar | AccessFs::MakeBlock | AccessFs::IoctlDev);
    for path in &policy.write {
        rules = allow(rules, path, write, newest)?;
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
    newest: ABI,
) -> Result<RulesetCreated, SandboxError> {
    let refused = |reason: String| SandboxError::Path { path: path.to_owned(), reason };
    let access = if path.is_dir() { access } else { access & AccessFs::from_file(newest) };
    let opened = PathFd::new(path).map_err(|error| refused(error.to_string()))?;
    rules.add_rule(PathBeneath::new(opened, access)).map_err(|error| refused(error.to_string()))
}
