//! `modunest publish`.

use std::path::PathBuf;

use super::Context;
use crate::error::Error;
use crate::package::{self, Source, Which};
use crate::publish::line;

/// Builds, packs and publishes each folder's plugin, in order: a plugin may depend on those
/// before it.
///
/// # Errors
/// The first that failed; those before it are published.
pub async fn run(
    context: &Context,
    folders: &[PathBuf],
    key: Option<PathBuf>,
    dry_run: bool,
    which: Which,
) -> Result<(), Error> {
    let publisher = context.publisher(key.as_deref())?;
    // Every manifest is read before anything is built, so that a typing error shows at once.
    let sources =
        folders.iter().map(|folder| Source::open(folder)).collect::<Result<Vec<_>, _>>()?;
    let mut done = Vec::new();
    for source in &sources {
        let built = package::build(source, which, &context.output).await?;
        let package = package::pack(source, &built)?;
        let published = publisher.publish(source, &package, dry_run, &context.output).await?;
        context.output.say(&line(&published))?;
        done.push(published);
    }
    if context.output.json { context.output.print(&done, |_| String::new()) } else { Ok(()) }
}
