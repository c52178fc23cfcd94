//! An ELF shared object as the dynamic loader sees it.
//!
//! Formats: System V ABI, chapters 4 and 5 (headers, program loading, dynamic linking), and
//! the Linux Standard Base for symbol versions and the GNU hash table.

use std::collections::BTreeMap;

use object::LittleEndian as LE;
use object::elf;
use object::pod::slice_from_bytes;
use object::read::elf::{FileHeader as _, GnuHashTable, ProgramHeader as _};
use serde::{Deserialize, Serialize};

use super::{LIBRARY_MAX_BYTES, Obstacle, ScanError};

type Header = elf::FileHeader64<LE>;
type Segment = elf::ProgramHeader64<LE>;

/// Most program headers; linkers write about ten.
const SEGMENTS_MAX: usize = 64;
/// Most dynamic symbols: five times what a large browser exports and imports.
const SYMBOLS_MAX: usize = 200_000;
/// Longest name read in full, in bytes; the longest mangled names of real libraries are
/// below half of it. With [`SYMBOLS_MAX`] it bounds the work on shared strings.
const NAME_MAX_BYTES: usize = 4096;
/// Most symbol versions needed; large programs need about a hundred.
const VERSIONS_MAX: usize = 4096;
/// Most entries of the dynamic segment; libraries have about thirty.
const DYNAMIC_MAX: usize = 4096;
/// Smallest page on any supported target, in bytes.
const PAGE_BYTES: u64 = 4096;

/// How a library is not what the loader needs, or could be read in two ways.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Malformed {
    /// Not a 64-bit little-endian ELF file.
    #[error("it is not a 64-bit little-endian ELF file")]
    NotElf,
    /// An executable, object file or core dump.
    #[error("it is an ELF file, but not a shared library")]
    NotLibrary,
    /// Loadable segments are out of order, overlap, or end outside the file.
    #[error("its loadable segments overlap or are not in the file")]
    Segments,
    /// Not exactly one dynamic segment, or one without an end.
    #[error("it has no single, complete dynamic segment")]
    Dynamic,
    /// An entry of the dynamic segment stands twice.
    #[error("its dynamic segment has two entries with tag {tag:#x}")]
    Twice {
        /// The tag.
        tag: u64,
    },
    /// A table is missing, cut short, or in memory that can change while loading.
    #[error("its {table} is missing, cut short or writable")]
    Table {
        /// The table.
        table: String,
    },
    /// A name is not in the string table, or is too long.
    #[error("a name lies outside its string table or is longer than {NAME_MAX_BYTES} bytes")]
    Name,
}

fn table_error(table: &str) -> Malformed {
    Malformed::Table { table: table.to_owned() }
}

/// Tags whose value the scanner believes, so that they may stand only once.
const SINGLE_TAGS: [u32; 15] = [
    elf::DT_STRTAB,
    elf::DT_STRSZ,
    elf::DT_SYMTAB,
    elf::DT_HASH,
    elf::DT_GNU_HASH,
    elf::DT_RELA,
    elf::DT_RELASZ,
    elf::DT_JMPREL,
    elf::DT_PLTRELSZ,
    elf::DT_VERNEED,
    elf::DT_VERNEEDNUM,
    elf::DT_FLAGS,
    elf::DT_FLAGS_1,
    elf::DT_TEXTREL,
    elf::DT_BIND_NOW,
];

/// A library whose headers were read and make sense.
pub(super) struct Library<'d> {
    data: &'d [u8],
    loads: Vec<&'d Segment>,
    dynamic: BTreeMap<u32, u64>,
    needed: Vec<u64>,
    paths: Vec<u64>,
    /// `e_machine`.
    pub(super) machine: u16,
    pub(super) stack_not_executable: bool,
    pub(super) writable_code: bool,
    pub(super) text_relocations: bool,
    pub(super) relro: bool,
    pub(super) bind_now: bool,
}

impl<'d> Library<'d> {
    /// Reads headers and the dynamic segment.
    pub(super) fn read(data: &'d [u8]) -> Result<Self, ScanError> {
        if data.len() > LIBRARY_MAX_BYTES {
            return Err(Obstacle::TooLarge { size_bytes: data.len() }.into());
        }
        let header = Header::parse(data).map_err(|_| Malformed::NotElf)?;
        if header.endian().is_err() || header.e_version.get(LE) != u32::from(elf::EV_CURRENT) {
            return Err(Malformed::NotElf.into());
        }
        if header.e_type.get(LE) != elf::ET_DYN {
            return Err(Malformed::NotLibrary.into());
        }
        // The loader does not know the extension that puts the number elsewhere (PN_XNUM).
        if usize::from(header.e_phnum.get(LE)) > SEGMENTS_MAX {
            return Err(Obstacle::TooMany { what: "segments".to_owned() }.into());
        }
        let segments = header.program_headers(LE, data).map_err(|_| Malformed::Segments)?;
        let of = |kind: u32| segments.iter().filter(move |s| s.p_type.get(LE) == kind);
        let flags = |segment: &Segment| segment.p_flags.get(LE);
        let loads: Vec<&Segment> = of(elf::PT_LOAD).collect();
        check_loads(data, &loads)?;
        let mut dynamics = of(elf::PT_DYNAMIC);
        let (Some(place), None) = (dynamics.next(), dynamics.next()) else {
            return Err(Malformed::Dynamic.into());
        };
        let mut library = Library {
            data,
            dynamic: BTreeMap::new(),
            needed: Vec::new(),
            paths: Vec::new(),
            machine: header.e_machine.get(LE),
            stack_not_executable: of(elf::PT_GNU_STACK).any(|s| flags(s) & elf::PF_X == 0)
                && of(elf::PT_GNU_STACK).all(|s| flags(s) & elf::PF_X == 0),
            writable_code: loads
                .iter()
                .any(|s| flags(s) & (elf::PF_W | elf::PF_X) == elf::PF_W | elf::PF_X),
            text_relocations: false,
            relro: of(elf::PT_GNU_RELRO).next().is_some(),
            bind_now: false,
            loads,
        };
        library.read_dynamic(place)?;
        Ok(library)
    }

    fn read_dynamic(&mut self, place: &Segment) -> Result<(), ScanError> {
        // The loader finds it by address; the offset that tools use must not differ.
        let (vaddr, size) = (place.p_vaddr.get(LE), place.p_filesz.get(LE));
        let bytes = self.at(vaddr, false).ok_or(Malformed::Dynamic)?;
        let offset = bytes.as_ptr() as usize - self.data.as_ptr() as usize;
        if offset as u64 != place.p_offset.get(LE) {
            return Err(Malformed::Dynamic.into());
        }
        let count =
            usize::try_from(size).map_err(|_| Malformed::Dynamic)? / size_of::<elf::Dyn64<LE>>();
        if count > DYNAMIC_MAX {
            return Err(Obstacle::TooMany { what: "dynamic entries".to_owned() }.into());
        }
        let (entries, _) =
            slice_from_bytes::<elf::Dyn64<LE>>(bytes, count).map_err(|()| Malformed::Dynamic)?;
        let end = entries.iter().position(|entry| entry.d_tag.get(LE) == u64::from(elf::DT_NULL));
        for entry in &entries[..end.ok_or(Malformed::Dynamic)?] {
            let (tag, value) = (entry.d_tag.get(LE), entry.d_val.get(LE));
            let Ok(known) = u32::try_from(tag) else { continue };
            match known {
                elf::DT_NEEDED
                | elf::DT_AUDIT
                | elf::DT_DEPAUDIT
                | elf::DT_FILTER
                | elf::DT_AUXILIARY => self.needed.push(value),
                elf::DT_RPATH | elf::DT_RUNPATH => self.paths.push(value),
                _ if SINGLE_TAGS.contains(&known)
                    && self.dynamic.insert(known, value).is_some() =>
                {
                    return Err(Malformed::Twice { tag }.into());
                }
                _ => {}
            }
        }
        let (flags, flags_1) = (self.flags(elf::DT_FLAGS), self.flags(elf::DT_FLAGS_1));
        if flags_1 & u64::from(elf::DF_1_PIE) != 0 {
            return Err(Malformed::NotLibrary.into());
        }
        self.text_relocations =
            self.has(elf::DT_TEXTREL) || flags & u64::from(elf::DF_TEXTREL) != 0;
        self.bind_now = self.has(elf::DT_BIND_NOW)
            || flags & u64::from(elf::DF_BIND_NOW) != 0
            || flags_1 & u64::from(elf::DF_1_NOW) != 0;
        Ok(())
    }

    fn has(&self, tag: u32) -> bool {
        self.dynamic.contains_key(&tag)
    }

    fn flags(&self, tag: u32) -> u64 {
        self.dynamic.get(&tag).copied().unwrap_or(0)
    }

    /// The file's bytes that the loader maps at `vaddr`, to the end of their segment.
    /// Tables are `constant`: memory that relocations could change proves nothing.
    fn at(&self, vaddr: u64, constant: bool) -> Option<&'d [u8]> {
        let segment = self.loads.iter().find(|segment| {
            let start = segment.p_vaddr.get(LE);
            (start..start + segment.p_filesz.get(LE)).contains(&vaddr)
        })?;
        if constant && segment.p_flags.get(LE) & elf::PF_W != 0 {
            return None;
        }
        let bytes = segment.data(LE, self.data).ok()?;
        bytes.get(usize::try_from(vaddr - segment.p_vaddr.get(LE)).ok()?..)
    }

    /// The table that a tag points to.
    fn table(&self, tag: u32, name: &str) -> Result<&'d [u8], Malformed> {
        let vaddr = self.dynamic.get(&tag).ok_or_else(|| table_error(name))?;
        self.at(*vaddr, true).ok_or_else(|| table_error(name))
    }

    fn strings(&self) -> Result<&'d [u8], Malformed> {
        let error = || table_error("string table");
        let size = usize::try_from(self.flags(elf::DT_STRSZ)).map_err(|_| error())?;
        self.table(elf::DT_STRTAB, "string table")?.get(..size).ok_or_else(error)
    }

    fn name(&self, offset: u64) -> Result<&'d [u8], Malformed> {
        let strings = self.strings()?;
        let rest =
            usize::try_from(offset).ok().and_then(|at| strings.get(at..)).ok_or(Malformed::Name)?;
        let end = rest.iter().take(NAME_MAX_BYTES).position(|&byte| byte == 0);
        Ok(&rest[..end.ok_or(Malformed::Name)?])
    }

    /// Libraries it loads, in order; also auditors and filters, which the loader loads too.
    pub(super) fn needed(&self) -> Result<Vec<&'d [u8]>, Malformed> {
        self.needed.iter().map(|&offset| self.name(offset)).collect()
    }

    /// Search paths for libraries.
    pub(super) fn search_paths(&self) -> Result<Vec<&'d [u8]>, Malformed> {
        self.paths.iter().map(|&offset| self.name(offset)).collect()
    }

    /// Nothing in the format says how many dynamic symbols there are. Exports are found
    /// through a hash table, imports through relocations: the highest of them all counts.
    fn symbols(&self) -> Result<&'d [elf::Sym64<LE>], ScanError> {
        let mut count = 0u64;
        if self.has(elf::DT_GNU_HASH) {
            let bytes = self.table(elf::DT_GNU_HASH, "hash table")?;
            let table =
                GnuHashTable::<Header>::parse(LE, bytes).map_err(|_| table_error("hash table"))?;
            let hashed = table.symbol_table_length(LE).unwrap_or(table.symbol_base());
            count = count.max(hashed.into());
        }
        if self.has(elf::DT_HASH) {
            let bytes = self.table(elf::DT_HASH, "hash table")?;
            let (header, _) = slice_from_bytes::<elf::HashHeader<LE>>(bytes, 1)
                .map_err(|()| table_error("hash table"))?;
            count = count.max(header[0].chain_count.get(LE).into());
        }
        for (table, size) in [(elf::DT_RELA, elf::DT_RELASZ), (elf::DT_JMPREL, elf::DT_PLTRELSZ)] {
            for relocation in self.relocations(table, size)? {
                count = count.max(u64::from(relocation.r_sym(LE, false)) + 1);
            }
        }
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        if count > SYMBOLS_MAX {
            return Err(Obstacle::TooMany { what: "symbols".to_owned() }.into());
        }
        let bytes = self.table(elf::DT_SYMTAB, "symbol table")?;
        let (symbols, _) =
            slice_from_bytes(bytes, count).map_err(|()| table_error("symbol table"))?;
        Ok(symbols)
    }

    fn relocations(&self, table: u32, size: u32) -> Result<&'d [elf::Rela64<LE>], Malformed> {
        let error = || table_error("relocation table");
        let size = usize::try_from(self.flags(size)).map_err(|_| error())?;
        if size == 0 {
            return Ok(&[]);
        }
        let bytes = self.table(table, "relocation table")?;
        let count = size.div_ceil(size_of::<elf::Rela64<LE>>());
        slice_from_bytes(bytes, count).map(|(entries, _)| entries).map_err(|()| error())
    }

    /// Whether the loader's lookup finds a function of this name.
    pub(super) fn exports_function(&self, name: &str) -> Result<bool, ScanError> {
        let strings = self.strings()?;
        let wanted = [name.as_bytes(), b"\0"].concat();
        Ok(self.symbols()?.iter().any(|symbol| {
            let text = strings.get(symbol.st_name.get(LE) as usize..).unwrap_or_default();
            symbol.st_shndx.get(LE) != elf::SHN_UNDEF
                && symbol.st_type() == elf::STT_FUNC
                && matches!(symbol.st_bind(), elf::STB_GLOBAL | elf::STB_WEAK)
                && matches!(symbol.st_visibility(), elf::STV_DEFAULT | elf::STV_PROTECTED)
                && text.starts_with(&wanted)
        }))
    }

    /// Names that other libraries must provide.
    pub(super) fn imports(&self) -> Result<Vec<&'d [u8]>, ScanError> {
        let undefined = self
            .symbols()?
            .iter()
            .skip(1)
            .filter(|symbol| symbol.st_shndx.get(LE) == elf::SHN_UNDEF);
        Ok(undefined
            .map(|symbol| self.name(symbol.st_name.get(LE).into()))
            .collect::<Result<_, _>>()?)
    }

    /// Names of the symbol versions that must be there, such as `GLIBC_2.34`. The loader
    /// goes on without those that are marked weak.
    pub(super) fn versions_needed(&self) -> Result<Vec<&'d [u8]>, ScanError> {
        let error = || table_error("table of versions needed");
        let files = self.flags(elf::DT_VERNEEDNUM);
        if !self.has(elf::DT_VERNEED) {
            return Ok(Vec::new());
        }
        let mut rest = self.table(elf::DT_VERNEED, "table of versions needed")?;
        let mut versions = Vec::new();
        // The loader follows the chain to its end and ignores the number; both must agree.
        for file in 1u64.. {
            let need = first::<elf::Verneed<LE>>(rest).ok_or_else(error)?;
            let mut entries = rest.get(need.vn_aux.get(LE) as usize..).ok_or_else(error)?;
            loop {
                if versions.len() >= VERSIONS_MAX {
                    return Err(Obstacle::TooMany { what: "versions".to_owned() }.into());
                }
                let entry = first::<elf::Vernaux<LE>>(entries).ok_or_else(error)?;
                let weak = entry.vna_flags.get(LE) & elf::VER_FLG_WEAK != 0;
                versions.push((weak, self.name(entry.vna_name.get(LE).into())?));
                match entry.vna_next.get(LE) {
                    0 => break,
                    next => entries = entries.get(next as usize..).ok_or_else(error)?,
                }
            }
            match need.vn_next.get(LE) {
                0 if file == files => break,
                0 => return Err(error().into()),
                next => rest = rest.get(next as usize..).ok_or_else(error)?,
            }
        }
        Ok(versions.into_iter().filter(|(weak, _)| !weak).map(|(_, name)| name).collect())
    }
}

fn first<T: object::pod::Pod>(bytes: &[u8]) -> Option<&T> {
    object::pod::from_bytes(bytes).ok().map(|(value, _)| value)
}

/// Loadable segments ascend, lie within the file, and share no page of memory: otherwise a
/// later one would replace what the scanner read in an earlier one.
fn check_loads(data: &[u8], loads: &[&Segment]) -> Result<(), Malformed> {
    let mut free_from = 0u64;
    for segment in loads {
        let (vaddr, size) = (segment.p_vaddr.get(LE), segment.p_memsz.get(LE));
        let in_file = segment.data(LE, data).is_ok() && segment.p_filesz.get(LE) <= size;
        let end = vaddr.checked_add(size).and_then(|end| end.checked_next_multiple_of(PAGE_BYTES));
        match end {
            Some(end) if in_file && vaddr / PAGE_BYTES * PAGE_BYTES >= free_from => free_from = end,
            _ => return Err(Malformed::Segments),
        }
    }
    if loads.is_empty() { Err(Malformed::Segments) } else { Ok(()) }
}
