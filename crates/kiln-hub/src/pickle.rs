use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read, Seek, SeekFrom};
use std::path::Path;

use crate::Error;

// A pickle is a program that can call any function it names when Python unpickles it. Kiln does not run pickles, but
// the downloaded files are in a cache that Python reads. So the pickle is parsed, opcode by opcode. It is refused if it
// names anything that weights do not need, or uses an opcode that they do not need.

/// The modules and names that weights need.
const HARMLESS: [(&str, &[&str]); 4] = [
    ("collections", &["OrderedDict"]),
    ("torch._utils", &["_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_parameter"]),
    ("torch.nn.parameter", &["Parameter"]),
    ("torch", &["Size", "device"]),
];
/// Types of storages and numbers, also in the module `torch`.
const TYPES: [&str; 10] = ["Float", "Half", "BFloat16", "Double", "Long", "Int", "Short", "Char", "Byte", "Bool"];

/// The number of pickles in PyTorch's legacy format: a magic number, a version, the machine, the tensors, and their
/// keys.
const OLD_PICKLES: usize = 5;
/// The maximum size of a pickle. The pickle of 10,000 tensors is about 2 MiB.
const MOST_BYTES: u64 = 64 << 20;

/// Whether files with this name are normally unpickled.
pub(crate) fn is_meant(name: &str) -> bool {
    [".bin", ".pt", ".pth", ".ckpt", ".pkl"].iter().any(|ending| name.ends_with(ending))
}

/// Refuses a PyTorch file, in the zip or the legacy format, unless it contains only data.
pub(crate) fn check(path: &Path) -> Result<(), Error> {
    let found = kiln_files::open(path).and_then(|mut file| {
        let mut magic = [0; 4];
        file.read_exact(&mut magic)?;
        file.seek(SeekFrom::Start(0))?;
        match &magic {
            b"PK\x03\x04" => archive(file),
            _ => {
                let mut reader = BufReader::new(file).take(MOST_BYTES);
                (0..OLD_PICKLES).try_for_each(|_| walk(&mut reader))
            }
        }
    });
    found.map_err(|error| match error.kind() {
        io::ErrorKind::InvalidData => Error::Pickle { path: path.to_owned(), found: error.to_string() },
        io::ErrorKind::UnexpectedEof => Error::Pickle { path: path.to_owned(), found: "an early end".to_owned() },
        _ => Error::io(path)(error),
    })
}

fn refuse(found: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, found.into())
}

/// Parses every pickle of a zip archive. The entries are taken from the central directory, because readers use it.
fn archive(mut file: File) -> io::Result<()> {
    let (entries, mut directory) = central_directory(&mut file)?;
    let mut pickles = 0;
    for _ in 0..entries {
        let mut head = [0; 46];
        directory.read_exact(&mut head)?;
        if !head.starts_with(b"PK\x01\x02") {
            return Err(refuse("a broken archive"));
        }
        let [name_len, extra_len, comment_len] = [28, 30, 32].map(|at| usize::from(u16_at(&head, at)));
        let mut rest = vec![0; name_len + extra_len + comment_len];
        directory.read_exact(&mut rest)?;
        let (name, rest) = rest.split_at(name_len);
        if name.ends_with(b".pkl") {
            if u16_at(&head, 10) != 0 {
                return Err(refuse("a compressed pickle"));
            }
            let [size, _, start] = wide_numbers(&head, &rest[..extra_len])?;
            walk_entry(&mut file, start, size)?;
            pickles += 1;
        }
    }
    if pickles == 0 { Err(refuse("an archive without a pickle")) } else { Ok(()) }
}

/// The number of entries in the central directory, and its bytes.
fn central_directory(file: &mut File) -> io::Result<(u64, Cursor<Vec<u8>>)> {
    // An archive ends with a record of 22 bytes and an optional comment. A large archive has a record of 20 bytes
    // before it.
    let length = file.metadata()?.len();
    let tail_start = length.saturating_sub(22 + 20 + u64::from(u16::MAX));
    let tail = read_at(file, tail_start, length - tail_start)?;
    let end = tail.windows(4).rposition(|window| window == b"PK\x05\x06").ok_or_else(|| refuse("a broken archive"))?;
    let record = tail.get(end..end + 22).ok_or_else(|| refuse("a broken archive"))?;
    let mut numbers = [u64::from(u16_at(record, 10)), u64::from(u32_at(record, 12)), u64::from(u32_at(record, 16))];
    if let Some(locator) = end.checked_sub(20).map(|at| &tail[at..end]).filter(|it| it.starts_with(b"PK\x06\x07")) {
        let large = read_at(file, u64_at(locator, 8), 56)?;
        numbers = [u64_at(&large, 32), u64_at(&large, 40), u64_at(&large, 48)];
    }
    let [entries, size, start] = numbers;
    Ok((entries, Cursor::new(read_at(file, start, size)?)))
}

/// The size, packed size and start of an entry. Numbers beyond 4 GiB are in the extra field, in this order.
fn wide_numbers(head: &[u8], extra: &[u8]) -> io::Result<[u64; 3]> {
    let mut fields = extra;
    let mut wide: &[u8] = &[];
    while let [a, b, c, d, rest @ ..] = fields {
        let (id, len) = (u16::from_le_bytes([*a, *b]), usize::from(u16::from_le_bytes([*c, *d])));
        let (field, rest) = rest.split_at_checked(len).ok_or_else(|| refuse("a broken archive"))?;
        if id == 1 {
            wide = field;
        }
        fields = rest;
    }
    let mut numbers = [24, 20, 42].map(|at| u64::from(u32_at(head, at)));
    for number in numbers.iter_mut().filter(|number| **number == u64::from(u32::MAX)) {
        let (first, rest) = wide.split_first_chunk().ok_or_else(|| refuse("a broken archive"))?;
        (*number, wide) = (u64::from_le_bytes(*first), rest);
    }
    Ok(numbers)
}

fn walk_entry(file: &mut File, start: u64, size: u64) -> io::Result<()> {
    let head = read_at(file, start, 30)?;
    let names = u64::from(u16_at(&head, 26)) + u64::from(u16_at(&head, 28));
    let start = start.checked_add(30 + names).ok_or_else(|| refuse("a broken archive"))?;
    walk(&mut Cursor::new(read_at(file, start, size)?))
}

fn read_at(file: &mut File, start: u64, size: u64) -> io::Result<Vec<u8>> {
    if size > MOST_BYTES {
        return Err(refuse(format!("a part of {size} bytes where weights have at most {MOST_BYTES}")));
    }
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = vec![0; size as usize];
    file.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

/// Parses one pickle to its end. The opcodes are those of Python's `pickletools`.
fn walk(reader: &mut impl BufRead) -> io::Result<()> {
    loop {
        let [opcode] = take(reader)?;
        match opcode {
            // STOP.
            b'.' => return Ok(()),
            // GLOBAL.
            b'c' => {
                let (module, name) = (line(reader)?, line(reader)?);
                if !is_harmless(&module, &name) {
                    return Err(refuse(format!("`{}.{}`", module.escape_debug(), name.escape_debug())));
                }
            }
            // MARK, POP, POP_MARK, DUP, NONE, APPEND, APPENDS, BUILD, DICT, EMPTY_DICT, LIST, EMPTY_LIST, SETITEM,
            // SETITEMS, TUPLE, EMPTY_TUPLE, REDUCE, BINPERSID, NEWOBJ, TUPLE1 to TUPLE3, NEWTRUE, NEWFALSE.
            b'('
            | b'0'
            | b'1'
            | b'2'
            | b'N'
            | b'a'
            | b'e'
            | b'b'
            | b'd'
            | b'}'
            | b'l'
            | b']'
            | b's'
            | b'u'
            | b't'
            | b')'
            | b'R'
            | b'Q'
            | 0x81
            | 0x85..=0x89 => {}
            // PROTO, BININT1, BINGET, BINPUT.
            0x80 | b'K' | b'h' | b'q' => skip(reader, 1)?,
            // BININT2.
            b'M' => skip(reader, 2)?,
            // BININT, LONG_BINGET, LONG_BINPUT.
            b'J' | b'j' | b'r' => skip(reader, 4)?,
            // BINFLOAT.
            b'G' => skip(reader, 8)?,
            // SHORT_BINSTRING, LONG1.
            b'U' | 0x8a => {
                let [len] = take(reader)?;
                skip(reader, u64::from(len))?;
            }
            // BINUNICODE, BINSTRING.
            b'X' | b'T' => {
                let len = u32::from_le_bytes(take(reader)?);
                skip(reader, u64::from(len))?;
            }
            other => return Err(refuse(format!("the opcode 0x{other:02x}"))),
        }
    }
}

fn is_harmless(module: &str, name: &str) -> bool {
    let is_listed = HARMLESS.iter().any(|(known, names)| *known == module && names.contains(&name));
    let is_type = |name: &str| TYPES.iter().any(|known| *known == name.strip_suffix("Storage").unwrap_or_default());
    is_listed || (module == "torch" && is_type(name))
}

fn take<const N: usize>(reader: &mut impl BufRead) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    reader.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn skip(reader: &mut impl BufRead, count: u64) -> io::Result<()> {
    match io::copy(&mut reader.take(count), &mut io::sink())? {
        skipped if skipped == count => Ok(()),
        _ => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

fn line(reader: &mut impl BufRead) -> io::Result<String> {
    let mut bytes = Vec::new();
    reader.take(1000).read_until(b'\n', &mut bytes)?;
    match bytes.pop() {
        Some(b'\n') => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        _ => Err(refuse("a name without an end")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An archive of stored entries, as PyTorch writes it. The checksums are omitted, because they are not read here.
    fn zip(entries: &[(&str, &[u8])], method: u16) -> Vec<u8> {
        let (mut bytes, mut directory): (Vec<u8>, Vec<u8>) = (Vec::new(), Vec::new());
        for (name, content) in entries {
            let start = bytes.len() as u32;
            let mut common = Vec::new();
            common.extend([0, 0, 0, 0].iter().chain(&method.to_le_bytes()).chain(&[0; 8]));
            let len = (content.len() as u32).to_le_bytes();
            common.extend(len.iter().chain(&len).chain(&(name.len() as u16).to_le_bytes()).chain(&[0, 0]));
            bytes.extend(b"PK\x03\x04".iter().chain(&common).chain(name.as_bytes()).chain(*content));
            directory.extend(b"PK\x01\x02\0\0".iter().chain(&common).chain(&[0; 10]));
            directory.extend(start.to_le_bytes().iter().chain(name.as_bytes()));
        }
        let (start, len, count) = (bytes.len() as u32, directory.len() as u32, (entries.len() as u16).to_le_bytes());
        bytes.extend(directory);
        bytes.extend(b"PK\x05\x06\0\0\0\0".iter().chain(&count).chain(&count));
        bytes.extend(len.to_le_bytes().iter().chain(&start.to_le_bytes()).chain(&[0, 0]));
        bytes
    }

    fn checked(content: &[u8]) -> Result<(), String> {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        std::fs::write(file.path(), content).expect("a small file");
        check(file.path()).map_err(|error| error.to_string())
    }

    /// `OrderedDict()`, as written by `pickle.dumps(…, protocol=2)`.
    const DATA: &[u8] = b"\x80\x02ccollections\nOrderedDict\nq\x00)Rq\x01.";
    /// `os.system("id")` when unpickled.
    const CODE: &[u8] = b"\x80\x02cposix\nsystem\nq\x00X\x02\x00\x00\x00idq\x01\x85q\x02Rq\x03.";

    #[test]
    fn data_passes_and_code_does_not() {
        checked(&zip(&[("archive/data.pkl", DATA), ("archive/data/0", b"1234")], 0)).expect("data alone");
        checked(&[DATA.repeat(5), vec![0xff; 100]].concat()).expect("data alone, in the older format");
        for content in [
            zip(&[("archive/data.pkl", CODE)], 0),
            zip(&[("archive/data.pkl", DATA), ("archive/more.pkl", CODE)], 0),
            [DATA, DATA, DATA, DATA, CODE].concat(),
        ] {
            let error = checked(&content).expect_err("code");
            assert!(error.contains("`posix.system`"), "{error}");
        }
    }

    #[test]
    fn what_cannot_be_walked_is_refused() {
        for (content, what) in [
            (zip(&[("archive/data.pkl", DATA)], 8), "compressed"),
            (zip(&[("archive/data", DATA)], 0), "without a pickle"),
            // STACK_GLOBAL, INST and extensions name functions in other ways.
            (b"\x80\x04\x8c\x05posix\x8c\x06system\x93.".to_vec(), "opcode 0x8c"),
            (b"(S'id'\niposix\nsystem\n.".to_vec(), "opcode 0x53"),
            (b"\x80\x02\x82\x01.".to_vec(), "opcode 0x82"),
            (b"\x80\x02X\xff\xff\xff\xffid".to_vec(), "early end"),
            (DATA[..20].to_vec(), "without an end"),
            (vec![7; 2000], "opcode 0x07"),
            (b"PK\x03\x04 and no more of an archive".to_vec(), "broken archive"),
            (b"<ht".to_vec(), "early end"),
        ] {
            let error = checked(&content).expect_err(what);
            assert!(error.contains(what), "{error}");
        }
    }

    #[test]
    fn places_beyond_four_gib_are_read_from_the_extra_field() {
        let mut head = [0; 46];
        head[42..].fill(0xff);
        let extra = [&[9, 9, 2, 0, 7, 7, 1, 0, 8, 0][..], &(5_u64 << 32).to_le_bytes()].concat();
        assert_eq!(wide_numbers(&head, &extra).expect("whole fields"), [0, 0, 5 << 32]);
        assert!(wide_numbers(&head, &extra[..12]).is_err() && wide_numbers(&head, &[]).is_err());
    }
}
