//! One attack a rule, against archives made by hand; then what honest tools write.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod builder;
mod properties;

use builder::{File, REGULAR, make, one};

use super::*;
use crate::digest::Digest;

fn refusal(bytes: &[u8]) -> ArchiveError {
    match Archive::open(bytes) {
        Err(error) => error,
        Ok(archive) => archive.file_list().expect_err("accepted"),
    }
}

macro_rules! refuses {
    ($bytes:expr, $pattern:pat) => {{
        let error = refusal(&$bytes);
        assert!(matches!(error, $pattern), "{error:?}");
    }};
}

#[test]
fn the_builder_makes_good_archives() {
    let made = make(&[
        File::deflated("plugin.toml", b"hello hello hello"),
        File::stored("lib/plugin.so", b"\x7fELF").with(|f| f.attributes = 0o100_755 << 16),
        File::deflated("assets/grün.txt", b""),
    ]);
    let archive = Archive::open(&made.bytes).unwrap();
    let list = archive.file_list().unwrap();
    assert_eq!(
        list.files()
            .iter()
            .map(|f| (f.name.as_str(), f.size_bytes, f.executable))
            .collect::<Vec<_>>(),
        [("assets/grün.txt", 0, false), ("lib/plugin.so", 4, true), ("plugin.toml", 17, false)]
    );
    let record = list.get("plugin.toml").unwrap();
    assert_eq!(record.sha256, Digest::of(b"hello hello hello"));
    assert_eq!(archive.read(archive.entry("lib/plugin.so").unwrap()).unwrap(), b"\x7fELF");
}

#[test]
fn file_list_digest_is_of_the_documented_text() {
    let made = make(&[File::stored("b", b"x"), File::stored("a", b"")]);
    let text =
        format!("modunest-file-list/1\n{} 0 - a\n{} 1 - b\n", Digest::of(b""), Digest::of(b"x"));
    let list = Archive::open(&made.bytes).unwrap().file_list().unwrap();
    assert_eq!(list.digest(), Digest::of(text.as_bytes()));
}

#[test]
fn ends() {
    refuses!([], ArchiveError::EndRecord);
    refuses!([0; 22], ArchiveError::EndRecord);
    let good = one().bytes;
    refuses!(good[..good.len() - 1], ArchiveError::EndRecord);
    refuses!([&good[..], b"\0"].concat(), ArchiveError::EndRecord);
    let comment = [&one().end(20, &[1, 0]).bytes[..], b"c"].concat();
    refuses!(comment, ArchiveError::EndRecord);
    refuses!([b"#!", &good[..]].concat(), ArchiveError::DirectoryPlace);
    refuses!(make(&[]).bytes, ArchiveError::Empty);
    refuses!(one().end(4, &[1, 0]).bytes, ArchiveError::Disks);
    refuses!(one().end(6, &[1, 0]).bytes, ArchiveError::Disks);
    refuses!(one().end(8, &[2, 0]).bytes, ArchiveError::Disks);
    refuses!(one().central(34, &[1, 0]).bytes, ArchiveError::Disks);
    refuses!(vec![0; ARCHIVE_MAX_BYTES + 1], ArchiveError::TooLarge { .. });
}

#[test]
fn counts() {
    refuses!(one().end(8, &[2, 0, 2, 0]).bytes, ArchiveError::Record { .. });
    let two = make(&[File::stored("a", b""), File::stored("b", b"")]);
    refuses!(two.end(8, &[1, 0, 1, 0]).bytes, ArchiveError::DirectoryPlace);
    let files: Vec<File> = (0..=ENTRIES_MAX).map(|n| File::stored(&format!("f{n}"), b"")).collect();
    refuses!(make(&files).bytes, ArchiveError::TooManyEntries { count: 4097 });
    assert!(Archive::open(&make(&files[..ENTRIES_MAX]).bytes).is_ok());
}

#[test]
fn gaps_and_overlaps() {
    // A prefix with offsets that allow for it (a self-extracting archive).
    refuses!(
        make(&[File::stored("a", b"").with(|f| f.gap = b"x".to_vec())]).bytes,
        ArchiveError::Place { expected: 0, found: 1, .. }
    );
    let hidden = make(&[File::stored("a", b"1")]).bytes;
    let gap = File::stored("b", b"2").with(|f| f.gap = hidden);
    refuses!(make(&[File::stored("a", b"1"), gap]).bytes, ArchiveError::Place { .. });
    // Two entries that share one body, as in quoted-overlap bombs.
    let mut overlap = make(&[File::stored("a", b"1"), File::stored("a", b"1")]);
    let second = overlap.centrals[1];
    overlap = overlap.patch(second + 42, &0u32.to_le_bytes());
    refuses!(overlap.bytes, ArchiveError::Collision { .. });
    let mut overlap = make(&[File::stored("a", b"1"), File::stored("b", b"1")]);
    let second = overlap.centrals[1];
    overlap = overlap.patch(second + 42, &0u32.to_le_bytes());
    refuses!(overlap.bytes, ArchiveError::Place { .. });
    // The directory in another order than the files.
    let made = make(&[File::stored("a", b"1"), File::stored("b", b"1")]);
    let (first, second, end) = (made.centrals[0], made.centrals[1], made.end);
    let swapped = [
        &made.bytes[..first],
        &made.bytes[second..end],
        &made.bytes[first..second],
        &made.bytes[end..],
    ]
    .concat();
    refuses!(swapped, ArchiveError::Place { .. });
    // A file that only the local headers know.
    let made = make(&[File::stored("a", b"1"), File::stored("b", b"1")]);
    let (second, end) = (made.centrals[1], made.end);
    let mut dropped = [&made.bytes[..second], &made.bytes[end..]].concat();
    let at = second + 8;
    dropped[at..at + 4].copy_from_slice(&[1, 0, 1, 0]);
    let size = (second - made.centrals[0]) as u32;
    dropped[at + 4..at + 8].copy_from_slice(&size.to_le_bytes());
    refuses!(dropped, ArchiveError::DirectoryPlace);
}

#[test]
fn records() {
    refuses!(one().central(0, b"PK\x01\x03").bytes, ArchiveError::Record { .. });
    refuses!(one().local(0, b"PK\x03\x05").bytes, ArchiveError::Record { .. });
    refuses!(
        one().both(20, &0x00ff_0000u32.to_le_bytes()).bytes,
        ArchiveError::Record { record: "data", .. }
    );
    refuses!(one().both(28, &[0xff, 0x7f]).bytes, ArchiveError::Record { .. });
}

#[test]
fn headers_that_disagree() {
    for (field, at, value) in [
        ("version needed", 4, vec![10, 0]),
        ("flags", 6, vec![0, 8]),
        ("compression method", 8, vec![0, 0]),
        ("modification time", 10, vec![1, 0]),
        ("modification date", 12, vec![1, 0]),
        ("checksum", 14, vec![1, 0, 0, 0]),
        ("compressed size", 18, vec![1, 0, 0, 0]),
        ("size", 22, vec![1, 0, 0, 0]),
        ("name length", 26, vec![10, 0]),
        ("extra field", 28, vec![4, 0]),
        ("name", 30, vec![b'P']),
    ] {
        let error = refusal(&one().local(at, &value).bytes);
        assert_eq!(error, ArchiveError::Disagreement { name: "plugin.toml".into(), field });
    }
}

#[test]
fn features() {
    for flag in [1u16, 1 << 6, 1 << 13] {
        refuses!(one().both(8, &flag.to_le_bytes()).bytes, ArchiveError::Encrypted { .. });
    }
    refuses!(one().both(8, &[8, 0]).bytes, ArchiveError::DataDescriptor { .. });
    for flag in [4, 5, 7, 12, 15] {
        refuses!(one().both(8, &(1u16 << flag).to_le_bytes()).bytes, ArchiveError::Flags { .. });
    }
    assert!(Archive::open(&one().both(8, &[6, 8]).bytes).is_ok());
    for method in [1u8, 9, 12, 14, 93, 99] {
        refuses!(one().both(10, &[method, 0]).bytes, ArchiveError::Method { .. });
    }
    refuses!(one().both(6, &[45, 0]).bytes, ArchiveError::Version { .. });
    refuses!(one().central(5, &[7]).bytes, ArchiveError::Version { .. });
    let extra = |f: &mut File| f.central_extra = b"UT\0\0".to_vec();
    refuses!(make(&[File::stored("a", b"").with(extra)]).bytes, ArchiveError::ExtraField { .. });
    let extra = |f: &mut File| f.local_extra = b"UT\0\0".to_vec();
    refuses!(
        make(&[File::stored("a", b"").with(extra)]).bytes,
        ArchiveError::Disagreement { field: "extra field", .. }
    );
    refuses!(
        make(&[File::stored("a", b"").with(|f| f.comment = b"c".to_vec())]).bytes,
        ArchiveError::Comment { .. }
    );
}

#[test]
fn zip64() {
    refuses!(one().both(20, &[0xff; 4]).bytes, ArchiveError::Zip64);
    refuses!(one().both(24, &[0xff; 4]).bytes, ArchiveError::Zip64);
    refuses!(one().central(42, &[0xff; 4]).bytes, ArchiveError::Zip64);
    refuses!(one().end(8, &[0xff; 4]).bytes, ArchiveError::Zip64);
    refuses!(one().end(12, &[0xff; 4]).bytes, ArchiveError::Zip64);
    refuses!(one().end(16, &[0xff; 4]).bytes, ArchiveError::Zip64);
    let made = one();
    let locator = [b"PK\x06\x07".as_slice(), &[0; 16]].concat();
    refuses!(
        [&made.bytes[..made.end], &locator, &made.bytes[made.end..]].concat(),
        ArchiveError::Zip64
    );
}

#[test]
fn kinds_of_files() {
    let typed = |attributes: u32| {
        make(&[File::stored("a", b"b").with(|f| f.attributes = attributes)]).bytes
    };
    refuses!(typed(0o120_777 << 16), ArchiveError::SymbolicLink { .. });
    refuses!(typed(0o040_755 << 16 | 0x10), ArchiveError::Folder { .. });
    refuses!(typed(0x10), ArchiveError::Folder { .. });
    for kind in [0o010_644u32, 0o020_644, 0o060_644, 0o140_644, 0o104_755, 0o102_755, 0o101_755] {
        refuses!(typed(kind << 16), ArchiveError::Special { .. });
    }
    refuses!(typed(REGULAR | 0x08), ArchiveError::Special { .. });
    refuses!(one().central(36, &[2, 0]).bytes, ArchiveError::Special { .. });
    for plain in [0, 0o600 << 16, REGULAR | 0x20, 0x21, REGULAR] {
        assert!(Archive::open(&typed(plain)).is_ok(), "{plain:#x}");
    }
    refuses!(make(&[File::stored("a/", b"")]).bytes, ArchiveError::Folder { .. });
}

#[test]
fn names() {
    use path::PathProblem;
    refuses!(
        make(&[File::stored("../a", b"")]).bytes,
        ArchiveError::Name { problem: PathProblem::DotSegment, .. }
    );
    refuses!(
        make(&[File::stored("/a", b"")]).bytes,
        ArchiveError::Name { problem: PathProblem::EmptySegment, .. }
    );
    refuses!(make(&[File::stored("", b"")]).bytes, ArchiveError::Name { .. });
    let latin = File::stored("a", b"").with(|f| f.name = b"gr\xfcn".to_vec());
    refuses!(make(&[latin]).bytes, ArchiveError::Name { problem: PathProblem::NotUtf8, .. });
    let unmarked = File::stored("grün", b"").with(|f| f.flags = 0);
    refuses!(make(&[unmarked]).bytes, ArchiveError::Name { problem: PathProblem::NotUtf8, .. });
    refuses!(
        make(&[File::stored("a", b""), File::stored("a", b"")]).bytes,
        ArchiveError::Collision { .. }
    );
    refuses!(
        make(&[File::stored("a", b""), File::stored("A", b"")]).bytes,
        ArchiveError::Collision { .. }
    );
    refuses!(
        make(&[File::stored("a", b""), File::stored("a/b", b"")]).bytes,
        ArchiveError::FileAndFolder { .. }
    );
}

#[test]
fn contents() {
    refuses!(
        make(&[File::stored("a", b"abc").with(|f| f.size = 2)]).bytes,
        ArchiveError::StoredSize { .. }
    );
    refuses!(
        make(&[File::stored("a", b"abc").with(|f| f.crc ^= 1)]).bytes,
        ArchiveError::Checksum { .. }
    );
    refuses!(
        make(&[File::deflated("a", b"abcabcabc").with(|f| f.crc ^= 1)]).bytes,
        ArchiveError::Checksum { .. }
    );
    refuses!(
        make(&[File::deflated("a", b"abcabcabc").with(|f| f.size -= 1)]).bytes,
        ArchiveError::Size { .. }
    );
    refuses!(
        make(&[File::deflated("a", b"abcabcabc").with(|f| f.size += 1)]).bytes,
        ArchiveError::Size { .. }
    );
    refuses!(
        make(&[File::deflated("a", b"abcabcabc").with(|f| f.data.push(0))]).bytes,
        ArchiveError::Trailing { trailing_bytes: 1, .. }
    );
    refuses!(
        make(&[File::deflated("a", b"abcabcabc").with(|f| {
            f.data.pop();
        })])
        .bytes,
        ArchiveError::Damaged { .. }
    );
    refuses!(
        make(&[File::deflated("a", b"abcabcabc").with(|f| f.data[0] = 0xff)]).bytes,
        ArchiveError::Damaged { .. }
    );
    refuses!(
        make(&[File::deflated("a", b"").with(|f| f.data.clear())]).bytes,
        ArchiveError::Damaged { .. }
    );
    // A deflate stream of two streams: the second is what another reader would append.
    let twice = File::deflated("a", b"abc").with(|f| {
        let copy = f.data.clone();
        f.data.extend(copy);
    });
    refuses!(make(&[twice]).bytes, ArchiveError::Trailing { .. });
}

#[test]
fn bombs() {
    refuses!(make(&[File::deflated("a", &vec![0; 1 << 20])]).bytes, ArchiveError::Ratio { .. });
    // Declares little and unpacks to much: stopped at the declared size.
    let liar = make(&[File::deflated("a", &vec![0; 1 << 20]).with(|f| f.size = 1000)]);
    let archive = Archive::open(&liar.bytes).unwrap();
    let mut received = 0;
    let result = archive.unpack(|part| {
        if let Part::Data(piece) = part {
            received += piece.len();
        }
        Ok::<(), std::convert::Infallible>(())
    });
    assert!(matches!(result, Err(UnpackError::Archive(ArchiveError::Size { .. }))));
    assert!(received <= 1000);
    let huge = |n: usize| {
        File::stored(&format!("f{n}"), b"").with(|f| {
            f.size = 0x0fff_ffff;
            f.method = 8;
            f.data = vec![3, 0];
        })
    };
    refuses!(make(&[huge(0), huge(1)]).bytes, ArchiveError::UnpackedTooLarge { .. });
}

#[test]
fn a_receiver_can_stop() {
    let made = one();
    let result = Archive::open(&made.bytes).unwrap().unpack(|part| match part {
        Part::End(_) => Err("disk full"),
        _ => Ok(()),
    });
    assert!(matches!(result, Err(UnpackError::Receiver("disk full"))));
}

#[test]
fn names_in_messages_cannot_steer_a_terminal() {
    let error = refusal(&make(&[File::stored("a\u{1b}[2Jb", b"")]).bytes);
    insta::assert_snapshot!(error, @r#""a\u{1b}[2Jb" is not a name for a file in a plugin: it contains the character '\u{1b}'"#);
}
