//! What a large registry's log and index take, by writing every byte of them and keeping none.
//!
//! Signatures are copies of one by the same key: only their length counts here.

use std::collections::BTreeMap;
use std::time::Instant;

use modunest_core::digest::Digest;
use modunest_core::index::{Bin, IndexFile, NODE_BYTES, Slot};
use modunest_core::statement::{Link, SignedStatement, Statement, Subject};
use modunest_tlog::{HASH_BYTES, SigningKey, TileId};

use super::population;
use crate::error::Error;
use crate::host::{in_parallel, processors};
use crate::report::{Report, Row};

/// Plugins of the registry, and releases of each: issue 4.
const PLUGINS: usize = 100_000;
const VERSIONS: usize = 10;
/// Bytes that stand before an entry in its bundle: its length.
const ENTRY_LENGTH_BYTES: usize = 2;
const MEGABYTE: f64 = 1e6;

/// Adds the figures.
pub fn measure(report: &mut Report) -> Result<(), Error> {
    let begun = Instant::now();
    let volume = Volume::of(PLUGINS, VERSIONS)?;
    let taken = begun.elapsed();
    let releases = (PLUGINS * VERSIONS) as f64;
    let size = volume.statements;
    let tiles = hash_tiles(size);
    let bundles = (0..).map_while(|index| TileId::entries(index, size)).count();
    let entries = volume.statement_bytes + size as usize * ENTRY_LENGTH_BYTES;
    // The root, its children, and bins, files and statements below them.
    let nodes = 1 + volume.nodes;
    let parts = [
        ("the log's entries", bundles, entries),
        ("the log's tiles of hashes", tiles.objects, tiles.bytes),
        ("index files", volume.files, volume.file_bytes),
        ("bins", volume.bins, volume.bin_bytes),
        ("nodes", nodes, nodes * NODE_BYTES),
    ];
    let mut all = 0;
    for (what, objects, bytes) in parts {
        all += bytes;
        let what = format!("{PLUGINS} plugins, {VERSIONS} versions: {what}, {objects} objects");
        report.row(Row::new(what, "MB", bytes as f64 / MEGABYTE));
    }
    let row = Row::new("all of it a release", "B", all as f64 / releases);
    report.row(row.against("its statements", volume.statement_bytes as f64 / releases));
    let rewritten = volume.file_bytes / volume.files + volume.bin_bytes / volume.bins;
    let row = Row::new("of the index a publish rewrites", "B", (rewritten + 2 * NODE_BYTES) as f64);
    report.row(row.against("one file", (volume.file_bytes / volume.files) as f64));
    report.note(format!(
        "{PLUGINS} plugins: {size} statements (a key of each {} plugins, releases of two builds \
         with 3 dependencies on average, a verdict behind each), computed in {:.0} s",
        population::PLUGINS_PER_ORG,
        taken.as_secs_f64()
    ));
    Ok(())
}

/// Tiles of hashes, or anything else that has a number and bytes.
struct Objects {
    objects: usize,
    bytes: usize,
}

fn hash_tiles(size: u64) -> Objects {
    let level = |level| (0..).map_while(move |index| TileId::hashes(level, index, size));
    let levels = (0..).take_while(|number| TileId::hashes(*number, 0, size).is_some());
    let mut all = Objects { objects: 0, bytes: 0 };
    for tile in levels.flat_map(level) {
        all.objects += 1;
        all.bytes += usize::from(tile.width()) * HASH_BYTES;
    }
    all
}

/// Sums over a registry.
#[derive(Default)]
struct Volume {
    statements: u64,
    statement_bytes: usize,
    files: usize,
    file_bytes: usize,
    bins: usize,
    bin_bytes: usize,
    nodes: usize,
}

/// An index file that was written and forgotten.
struct File {
    subject: Subject,
    digest: Digest,
    bytes: usize,
    statements: u64,
    statement_bytes: usize,
}

impl File {
    fn write(file: &IndexFile) -> File {
        let bytes = file.to_bytes();
        let lengths = file.entries.iter().map(|(_, signed)| signed.bytes().len());
        File {
            subject: file.subject.clone(),
            digest: Digest::of(&bytes),
            bytes: bytes.len(),
            statements: file.entries.len() as u64,
            statement_bytes: lengths.sum(),
        }
    }
}

impl Volume {
    /// A registry in which every plugin released its first version, then each its second, and
    /// so on.
    fn of(plugins: usize, versions: usize) -> Result<Volume, Error> {
        let orgs: Vec<usize> = (0..plugins.div_ceil(population::PLUGINS_PER_ORG)).collect();
        let registry = population::publisher(orgs.len())?;
        let files = in_parallel(&orgs, processors(), |&org| {
            org_files(org, orgs.len(), plugins, versions, &registry)
        })?;
        let mut volume = Volume::default();
        let mut bins: BTreeMap<Slot, Bin> = BTreeMap::new();
        for File { subject, digest, bytes, statements, statement_bytes } in
            files.into_iter().flatten()
        {
            volume.files += 1;
            volume.file_bytes += bytes;
            volume.statements += statements;
            volume.statement_bytes += statement_bytes;
            bins.entry(Slot::of(&subject)).or_default().set(subject, digest);
        }
        volume.bins = bins.len();
        volume.bin_bytes = bins.values().map(|bin| bin.to_bytes().len()).sum();
        let mut nodes: Vec<u8> = bins.keys().map(|slot| slot.node).collect();
        nodes.dedup();
        volume.nodes = nodes.len();
        Ok(volume)
    }
}

/// The index files of an organisation and its plugins.
fn org_files(
    org: usize,
    orgs: usize,
    plugins: usize,
    versions: usize,
    registry: &SigningKey,
) -> Result<Vec<File>, Error> {
    let publisher = population::publisher(org)?;
    let key = population::key(population::org(org)?, &publisher.verifying_key());
    let (subject, key) = (key.subject(), population::signed(&key, registry)?);
    let mut files = vec![File::write(&IndexFile { subject, entries: vec![(org as u64, key)] })];
    let first = org * population::PLUGINS_PER_ORG;
    for plugin in first..(first + population::PLUGINS_PER_ORG).min(plugins) {
        let (mut of_owner, mut of_registry) = (Signer::new(&publisher), Signer::new(registry));
        let mut entries = Vec::with_capacity(2 * versions);
        let (mut link, mut registry_link) = (Link::FIRST, Link::FIRST);
        for version in 0..versions {
            let position = (orgs + 2 * (version * plugins + plugin)) as u64;
            let release = population::release(plugin, version, link, plugins)?;
            let release = of_owner.sign(&release)?;
            let verdict = of_registry.sign(&population::verdict(&release, registry_link)?)?;
            (link, registry_link) = (release.next_link(), verdict.next_link());
            entries.extend([(position, release), (position + 1, verdict)]);
        }
        let subject = Subject::Plugin(population::plugin(plugin)?);
        files.push(File::write(&IndexFile { subject, entries }));
    }
    Ok(files)
}

/// Signs one statement, and puts that signature below all others.
struct Signer<'k> {
    key: &'k SigningKey,
    line: Option<Vec<u8>>,
}

impl<'k> Signer<'k> {
    const fn new(key: &'k SigningKey) -> Signer<'k> {
        Signer { key, line: None }
    }

    fn sign(&mut self, statement: &Statement) -> Result<SignedStatement, Error> {
        let what = "a statement";
        let text = statement.text().map_err(Error::wrong(what))?;
        let Some(line) = &self.line else {
            let signed = population::signed(statement, self.key)?;
            self.line = Some(signed.bytes()[text.len()..].to_vec());
            return Ok(signed);
        };
        let bytes = [text.as_bytes(), line].concat();
        SignedStatement::parse(bytes).map_err(Error::wrong(what))
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_small_registry_is_as_large_as_its_parts() {
        let volume = Volume::of(25, 3).unwrap();
        // Three organisations' keys, and 25 plugins with three releases and their verdicts.
        assert_eq!((volume.statements, volume.files), (3 + 25 * 6, 3 + 25));
        assert!(volume.statement_bytes < volume.file_bytes);
        assert!(volume.nodes <= volume.bins && volume.bins <= volume.files);
        let tiles = hash_tiles(70_000);
        assert_eq!(tiles.objects, 274 + 2 + 1);
        assert_eq!(tiles.bytes, (70_000 + 273 + 1) * HASH_BYTES);
    }
}
