//! The header of a checkpoint: facts about the whole file, and the position of each entry.
//!
//! ```text
//! bytes of the text u64
//! | {"__metadata__": {facts}, "name": {dtype, shape, data_offsets}, …} spaces
//! ```
//! This is the safetensors format. The facts come first, within the file's first 4 KiB, so that
//! reading those is enough to identify a file. The text is written and read as a stream and never
//! held in memory as a whole, however many entries there are. Everything in it is checked: a file
//! may be damaged or forged.

use std::io::{self, BufReader, Read, Write};

use blake3::Hasher;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Error as _, IgnoredAny, MapAccess, Visitor};

use super::disk::Source;
use crate::ids::Revision;
use crate::state::Key;
use crate::wire::state::{Digest, StateId};

/// The facts in a checkpoint's metadata.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// What it holds.
    pub content: StateId,
    /// Digest of the keys.
    pub keys: Digest,
    /// Digest of the entries whose content may differ: the root is not over these.
    pub unequal: Digest,
    /// Length of all entries in bytes.
    pub bytes: u64,
}

impl Facts {
    /// A digest over all of them: a bit that flips in the revision is seen, too.
    fn seal(&self) -> Digest {
        let mut hasher = Hasher::new_derive_key("ccl checkpoint 1");
        hasher.update(&self.content.revision.0.to_le_bytes());
        for digest in [&self.content.root, &self.keys, &self.unequal] {
            hasher.update(&digest.0);
        }
        hasher.update(&self.bytes.to_le_bytes());
        Digest(*hasher.finalize().as_bytes())
    }
}

/// Order of the entries in the file: the largest elements first, so that each entry is aligned to
/// its element; otherwise in the order of the keys.
pub fn file_order(keys: &[Key]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..keys.len()).collect();
    order.sort_by_key(|&index| std::cmp::Reverse(keys[index].dtype.bytes()));
    order
}

/// Writes the length, the text, and spaces up to a multiple of 8.
///
/// # Errors
/// Those of `out`; [`io::ErrorKind::InvalidInput`] if no reader would take it, it is so long.
pub fn write(out: &mut impl Write, facts: &Facts, keys: &[Key], order: &[usize]) -> io::Result<()> {
    let text_bytes = text_bytes(facts, keys, order)?;
    let padded_bytes = text_bytes.next_multiple_of(8);
    if padded_bytes > HEADER_BYTES_MAX {
        let what = "the names of all entries are too long together";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
    }
    out.write_all(&padded_bytes.to_le_bytes())?;
    write_text(out, facts, keys, order)?;
    out.write_all(&[b' '; 7][..(padded_bytes - text_bytes) as usize])
}

fn text_bytes(facts: &Facts, keys: &[Key], order: &[usize]) -> io::Result<u64> {
    let mut counter = Counter(0);
    write_text(&mut counter, facts, keys, order)?;
    Ok(counter.0)
}

fn write_text(
    out: &mut impl Write,
    facts: &Facts,
    keys: &[Key],
    order: &[usize],
) -> io::Result<()> {
    write!(
        out,
        "{START}{{\"ccl_checkpoint\":\"1\",\"revision\":\"{}\",\"root\":\"{}\",\"keys\":\"{}\",\"unequal\":\"{}\",\"bytes\":\"{}\",\"seal\":\"{}\"}}",
        facts.content.revision,
        facts.content.root,
        facts.keys,
        facts.unequal,
        facts.bytes,
        facts.seal()
    )?;
    let mut start = 0;
    for key in order.iter().map(|&index| &keys[index]) {
        let end = start + key.bytes().unwrap_or(0);
        out.write_all(b",")?;
        serde_json::to_writer(&mut *out, &key.name)?;
        let dtype = key.dtype.name().to_uppercase();
        write!(out, ":{{\"dtype\":\"{dtype}\",\"shape\":[")?;
        for (index, extent) in key.shape.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(out, "{comma}{extent}")?;
        }
        write!(out, "],\"data_offsets\":[{start},{end}]}}")?;
        start = end;
    }
    out.write_all(b"}")
}

/// Counts what would be written.
struct Counter(u64);

impl Write for Counter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Reads a file's facts, and the length of its header text, from its first 4 KiB and its length. An
/// error says what is wrong with it.
pub fn read_facts(source: &impl Source) -> Result<(Facts, u64), String> {
    let file_bytes = source.bytes().map_err(|error| error.to_string())?;
    if file_bytes < LENGTH_BYTES {
        return Err(format!(
            "it has {file_bytes} bytes, too few for a safetensors file"
        ));
    }
    let mut first = vec![0; file_bytes.min(FIRST_BYTES) as usize];
    let read = source.read_exact_at(&mut first, 0);
    read.map_err(|error| error.to_string())?;
    let (length, text) = first.split_at(LENGTH_BYTES as usize);
    let length = length.try_into().expect("split there");
    let text_bytes = u64::from_le_bytes(length);
    if text_bytes > HEADER_BYTES_MAX {
        return Err(format!(
            "its header length of {text_bytes} bytes is invalid"
        ));
    }
    let text = &text[..text.len().min(text_bytes as usize)];
    let facts = parse_facts(text)?;
    let expected = facts.bytes.checked_add(LENGTH_BYTES + text_bytes);
    if expected != Some(file_bytes) {
        return Err(format!(
            "it has {file_bytes} bytes, but its header of {} bytes announces {} more",
            LENGTH_BYTES + text_bytes,
            facts.bytes
        ));
    }
    Ok((facts, text_bytes))
}

/// As in the file, all of them text. Other programs may have added theirs.
#[derive(Deserialize)]
struct Metadata {
    ccl_checkpoint: String,
    revision: String,
    root: String,
    keys: String,
    unequal: String,
    bytes: String,
    seal: String,
}

fn parse_facts(text: &[u8]) -> Result<Facts, String> {
    let no_checkpoint = || "it is not a checkpoint of ccl".to_owned();
    let text = text
        .strip_prefix(START.as_bytes())
        .ok_or_else(no_checkpoint)?;
    let mut values = serde_json::Deserializer::from_slice(text).into_iter::<Metadata>();
    let metadata = values.next().ok_or_else(no_checkpoint)?;
    let damaged = |error| format!("its metadata is damaged: {}", shortened(error));
    let metadata = metadata.map_err(damaged)?;
    if metadata.ccl_checkpoint != "1" {
        let version = shortened(metadata.ccl_checkpoint);
        return Err(format!(
            "it has version `{version}`; use the program that wrote it"
        ));
    }
    let facts = Facts {
        content: StateId {
            revision: Revision(parse_number(&metadata.revision)?),
            root: parse_digest(&metadata.root)?,
        },
        keys: parse_digest(&metadata.keys)?,
        unequal: parse_digest(&metadata.unequal)?,
        bytes: parse_number(&metadata.bytes)?,
    };
    if facts.seal() != parse_digest(&metadata.seal)? {
        return Err("its metadata is damaged: the seal does not match".into());
    }
    Ok(facts)
}

fn parse_number(text: &str) -> Result<u64, String> {
    let number = text.parse();
    number.map_err(|_| "its metadata is damaged: invalid number".into())
}

fn parse_digest(text: &str) -> Result<Digest, String> {
    let damaged = || "its metadata is damaged: invalid digest".to_owned();
    if text.len() != 64 || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return Err(damaged());
    }
    let mut digest = Digest::default();
    for (byte, at) in digest.0.iter_mut().zip((0..64).step_by(2)) {
        *byte = u8::from_str_radix(&text[at..at + 2], 16).map_err(|_| damaged())?;
    }
    Ok(digest)
}

/// Where each entry begins, in bytes from the start of the file. `facts` and `text_bytes` are what
/// [`read_facts`] found, and the keys are those that were saved.
pub fn read_places(
    source: &impl Source,
    facts: &Facts,
    text_bytes: u64,
    keys: &[Key],
) -> Result<Vec<u64>, String> {
    let needed_bytes = text_bytes_needed(facts, keys)?;
    // Another program may have rewritten the text with a few more spaces.
    if text_bytes > 2 * needed_bytes + FIRST_BYTES {
        return Err(format!(
            "its header has {text_bytes} bytes; these entries need {needed_bytes}"
        ));
    }
    let text = Text {
        source,
        offset: LENGTH_BYTES,
        end: LENGTH_BYTES + text_bytes,
    };
    let mut json = serde_json::Deserializer::from_reader(BufReader::new(text));
    let damaged = |error| format!("its header is damaged: {}", shortened(error));
    let ranges = Ranges::new(keys).deserialize(&mut json).map_err(damaged)?;
    json.end().map_err(damaged)?;
    check_ranges(&ranges, facts.bytes)?;
    let data = LENGTH_BYTES + text_bytes;
    Ok(ranges.into_iter().map(|(start, _)| data + start).collect())
}

fn text_bytes_needed(facts: &Facts, keys: &[Key]) -> Result<u64, String> {
    let counted = text_bytes(facts, keys, &file_order(keys));
    counted.map_err(|error| error.to_string())
}

/// Ranges of entries must cover the data without gap or overlap.
fn check_ranges(ranges: &[(u64, u64)], bytes: u64) -> Result<(), String> {
    let mut order: Vec<u32> = (0..).take(ranges.len()).collect();
    order.sort_unstable_by_key(|&index| ranges[index as usize]);
    let mut covered = 0;
    for index in order {
        let (start, end) = ranges[index as usize];
        if start != covered {
            return Err("its header is damaged: entries overlap or leave gaps".into());
        }
        covered = end;
    }
    if covered != bytes {
        return Err("its header is damaged: entries do not fill the file".into());
    }
    Ok(())
}

/// The text of a header as a stream.
struct Text<'a, S> {
    source: &'a S,
    offset: u64,
    end: u64,
}

impl<S: Source> Read for Text<'_, S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = (self.end - self.offset).min(buffer.len() as u64) as usize;
        self.source
            .read_exact_at(&mut buffer[..count], self.offset)?;
        self.offset += count as u64;
        Ok(count)
    }
}

/// Reads the entries of a header, which must be those of the keys, and the range of each in the
/// data.
struct Ranges<'a> {
    keys: &'a [Key],
    /// Indices of the keys, sorted by name.
    by_name: Vec<u32>,
    found: Vec<Option<(u64, u64)>>,
}

impl<'a> Ranges<'a> {
    fn new(keys: &'a [Key]) -> Self {
        let mut by_name: Vec<u32> = (0..).take(keys.len()).collect();
        by_name.sort_unstable_by_key(|&index| &keys[index as usize].name);
        Self {
            keys,
            by_name,
            found: vec![None; keys.len()],
        }
    }

    fn take(&mut self, name: &str, tensor: &Tensor) -> Result<(), String> {
        let name_of = |index: &u32| self.keys[*index as usize].name.as_str();
        let place = self
            .by_name
            .binary_search_by(|index| name_of(index).cmp(name));
        let Ok(place) = place else {
            return Err(format!("its entry `{}` is unknown", shortened(name)));
        };
        let index = self.by_name[place] as usize;
        let key = &self.keys[index];
        let (start, end) = tensor.data_offsets;
        if !tensor.dtype.eq_ignore_ascii_case(key.dtype.name()) || tensor.shape != key.shape {
            return Err(format!("entry `{}` has another type or shape", key.name));
        }
        if end.checked_sub(start) != key.bytes() {
            return Err(format!("entry `{}` has another length", key.name));
        }
        match self.found[index].replace((start, end)) {
            Some(_) => Err(format!("duplicate entry `{}`", key.name)),
            None => Ok(()),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Tensor {
    dtype: String,
    shape: Vec<u64>,
    data_offsets: (u64, u64),
}

impl<'de> DeserializeSeed<'de> for Ranges<'_> {
    type Value = Vec<(u64, u64)>;

    fn deserialize<D>(self, deserializer: D) -> Result<Self::Value, D::Error>
    where
        D: serde::Deserializer<'de>,
    {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Ranges<'_> {
    type Value = Vec<(u64, u64)>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("entries by name")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<Self::Value, A::Error> {
        while let Some(name) = map.next_key::<String>()? {
            if name == METADATA {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            let tensor = map.next_value()?;
            self.take(&name, &tensor).map_err(A::Error::custom)?;
        }
        let keys = self.keys.iter();
        let ranges = self.found.into_iter().zip(keys).map(|(range, key)| {
            let missing = || A::Error::custom(format!("entry `{}` is missing", key.name));
            range.ok_or_else(missing)
        });
        ranges.collect()
    }
}

/// Shortens text from a file, or an error that quotes it, since it may be of any length.
fn shortened(text: impl std::fmt::Display) -> String {
    text.to_string().chars().take(QUOTE_CHARS_MAX).collect()
}

/// The name under which the format keeps facts; no entry can have it.
pub const METADATA: &str = "__metadata__";
/// How a header begins.
const START: &str = "{\"__metadata__\":";
/// Longest text that any reader of the format takes, in bytes.
const HEADER_BYTES_MAX: u64 = 100_000_000;
/// Longest quotation from a file in an error, in characters.
const QUOTE_CHARS_MAX: usize = 160;
/// Of the length before the text, in bytes.
const LENGTH_BYTES: u64 = 8;
/// How much of a file is read to learn what it is, in bytes: five times what is written.
const FIRST_BYTES: u64 = 4096;
