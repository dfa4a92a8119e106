//! A disk in memory that keeps synced data, and of the rest as much as the test chooses.
//!
//! It has two views: what running processes see, and what is certainly on the disk. Changes of
//! names are pending until their directory is synced; after a crash any of them may have happened,
//! without the others. Bytes are pending until their file is synced.

use std::collections::BTreeMap;
use std::io::{Error, ErrorKind, Result, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::lock::{Mutex, MutexGuard};

use crate::checkpoint::{Disk, Sink, Source};

/// The disk. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Model(Arc<Mutex<World>>);

#[derive(Clone, Debug, Default)]
struct World {
    files: Vec<Content>,
    visible: BTreeMap<PathBuf, Node>,
    durable: BTreeMap<PathBuf, Node>,
    pending: Vec<Change>,
    steps: usize,
    trouble: Option<Trouble>,
    is_dead: bool,
    neglect: Option<Neglect>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Node {
    Directory,
    File(usize),
}

/// A change of names in a directory.
#[derive(Clone, Debug)]
struct Change {
    from: Option<PathBuf>,
    to: Option<(PathBuf, Node)>,
}

#[derive(Clone, Debug, Default)]
struct Content {
    visible: Vec<u8>,
    durable: Vec<u8>,
    /// Unsynced writes: where, and what.
    writes: Vec<(usize, Vec<u8>)>,
}

/// A step, and what happens at it.
#[derive(Clone, Copy, Debug)]
pub struct Trouble {
    pub step: usize,
    pub how: How,
}

/// What happens at a step.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum How {
    /// It has no effect and returns an error.
    Fails,
    /// It has half of its effect, or all if it is indivisible, and returns an error.
    FailsHalfway,
    /// The process ends before it.
    Dies,
    /// The process ends in the middle of it.
    DiesHalfway,
    /// The process ends right after it.
    DiesAfter,
}

/// What happens to unsynced bytes when the machine crashes.
#[derive(Clone, Copy, Debug)]
pub enum Fate {
    Lost,
    Kept,
    /// The first half survives.
    Truncated,
    /// The file keeps its length, but the bytes are zeros.
    Zeros,
    /// Every second write survives.
    OutOfOrder,
}

/// A disk that reports syncs that it has not done.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Neglect {
    Files,
    Directories,
}

/// How much of a step takes place.
#[derive(PartialEq)]
enum Extent {
    Nothing,
    Half,
    All,
}

impl Model {
    /// A disk with one directory for others in it.
    pub fn new() -> Self {
        let model = Self::default();
        let mut world = model.0.lock();
        world.visible.insert("/".into(), Node::Directory);
        world.durable.insert("/".into(), Node::Directory);
        drop(world);
        model
    }

    pub fn plan(&self, trouble: Trouble) {
        self.0.lock().trouble = Some(trouble);
    }

    pub fn neglect(&self, what: Neglect) {
        self.0.lock().neglect = Some(what);
    }

    /// Steps attempted so far.
    pub fn steps(&self) -> usize {
        self.0.lock().steps
    }

    pub fn is_dead(&self) -> bool {
        self.0.lock().is_dead
    }

    /// Changes of names that may or may not have happened when the machine crashes.
    pub fn pending(&self) -> usize {
        self.0.lock().pending.len()
    }

    /// The view of another process on the machine, which is still running.
    pub fn next_process(&self) -> Self {
        let mut world = self.0.lock().clone();
        (world.trouble, world.is_dead) = (None, false);
        Self(Arc::new(Mutex::new(world)))
    }

    /// The disk after a crash of the machine. The pending changes whose bit is set in `happened`
    /// have taken place, and unsynced bytes have this fate.
    pub fn next_boot(&self, happened: u32, fate: Fate) -> Self {
        let world = self.0.lock();
        let mut names = world.durable.clone();
        for (index, change) in world.pending.iter().enumerate() {
            if happened >> index & 1 == 1 {
                change.apply(&mut names);
            }
        }
        let has_directory = |path: &Path| {
            path.parent()
                .is_none_or(|parent| names.contains_key(parent))
        };
        let lost: Vec<PathBuf> = names
            .keys()
            .filter(|path| !has_directory(path))
            .cloned()
            .collect();
        for path in lost {
            names.remove(&path);
        }
        let files = world.files.iter().map(|file| file.after(fate));
        Self(Arc::new(Mutex::new(World {
            files: files.collect(),
            visible: names.clone(),
            durable: names,
            ..World::default()
        })))
    }

    /// Replaces a file's bytes without a step.
    pub fn damage(&self, path: &Path, bytes: Vec<u8>) {
        let mut world = self.0.lock();
        let index = world.file(path).expect("it is there");
        world.files[index].visible = bytes;
    }

    /// A file that is certainly on the disk.
    pub fn add(&self, path: &Path, bytes: &[u8]) {
        let mut world = self.0.lock();
        let node = Node::File(world.files.len());
        world.files.push(Content {
            visible: bytes.into(),
            durable: bytes.into(),
            writes: Vec::new(),
        });
        world.visible.insert(path.into(), node);
        world.durable.insert(path.into(), node);
    }

    pub fn bytes_of(&self, path: &Path) -> Vec<u8> {
        let world = self.0.lock();
        world.files[world.file(path).expect("it is there")]
            .visible
            .clone()
    }

    /// The next step: how much of it takes place, and its result.
    fn step(&self) -> (MutexGuard<'_, World>, Extent, Result<()>) {
        let mut world = self.0.lock();
        let failure = || Err(Error::other("planned"));
        if world.is_dead {
            return (world, Extent::Nothing, failure());
        }
        let step = world.steps;
        world.steps += 1;
        let how = world.trouble.filter(|trouble| trouble.step == step);
        let (extent, told) = match how.map(|trouble| trouble.how) {
            None => (Extent::All, Ok(())),
            Some(How::Fails | How::Dies) => (Extent::Nothing, failure()),
            Some(How::FailsHalfway | How::DiesHalfway) => (Extent::Half, failure()),
            Some(How::DiesAfter) => (Extent::All, failure()),
        };
        world.is_dead = matches!(
            how.map(|trouble| trouble.how),
            Some(How::Dies | How::DiesHalfway | How::DiesAfter)
        );
        (world, extent, told)
    }

    fn change(&self, make: impl FnOnce(&mut World) -> Result<Change>) -> Result<()> {
        let (mut world, extent, told) = self.step();
        if extent != Extent::Nothing {
            let change = make(&mut world)?;
            change.apply(&mut world.visible);
            world.pending.push(change);
        }
        told
    }
}

impl World {
    fn file(&self, path: &Path) -> Result<usize> {
        match self.visible.get(path) {
            Some(Node::File(index)) => Ok(*index),
            _ => Err(ErrorKind::NotFound.into()),
        }
    }
}

impl Change {
    fn apply(&self, names: &mut BTreeMap<PathBuf, Node>) {
        if let Some(from) = &self.from {
            names.remove(from);
        }
        if let Some((to, node)) = &self.to {
            names.insert(to.clone(), *node);
        }
    }

    fn directory(&self) -> &Path {
        let to = self.to.as_ref().map(|(to, _)| to);
        let path = to.or(self.from.as_ref()).expect("it changes something");
        path.parent().expect("nobody changes the root")
    }
}

impl Content {
    fn after(&self, fate: Fate) -> Self {
        let mut bytes = self.durable.clone();
        let count = self.writes.len();
        for (index, (offset, written)) in self.writes.iter().enumerate() {
            let (kept, is_zero) = match fate {
                Fate::Lost => (0, false),
                Fate::Kept => (written.len(), false),
                Fate::Truncated if index == count / 2 => (written.len() / 2, false),
                Fate::Truncated if index > count / 2 => (0, false),
                Fate::Truncated => (written.len(), false),
                Fate::Zeros => (written.len(), true),
                Fate::OutOfOrder => (written.len() * (index % 2), false),
            };
            if kept > 0 {
                bytes.resize(bytes.len().max(offset + kept), 0);
                if !is_zero {
                    bytes[*offset..offset + kept].copy_from_slice(&written[..kept]);
                }
            }
        }
        Self {
            visible: bytes.clone(),
            durable: bytes,
            writes: Vec::new(),
        }
    }

    fn sync(&mut self) {
        self.durable.clone_from(&self.visible);
        self.writes.clear();
    }
}

impl Disk for Model {
    type Sink = ModelFile;
    type Source = Vec<u8>;
    type Lock = ();

    fn create_directory(&self, path: &Path) -> Result<()> {
        if self.0.lock().visible.contains_key(path) {
            return Ok(());
        }
        self.change(|_| {
            Ok(Change {
                from: None,
                to: Some((path.into(), Node::Directory)),
            })
        })
    }

    fn list(&self, directory: &Path) -> Result<Vec<String>> {
        let (world, _, told) = self.step();
        told?;
        if !world.visible.contains_key(directory) {
            return Err(ErrorKind::NotFound.into());
        }
        let inside = world
            .visible
            .keys()
            .filter(|path| path.parent() == Some(directory));
        let names = inside.filter_map(|path| path.file_name()?.to_str());
        Ok(names.map(String::from).collect())
    }

    fn lock(&self, _: &Path) -> Result<()> {
        self.step().2
    }

    fn create(&self, path: &Path) -> Result<ModelFile> {
        let mut index = 0;
        self.change(|world| {
            if world.visible.contains_key(path) {
                return Err(ErrorKind::AlreadyExists.into());
            }
            index = world.files.len();
            world.files.push(Content::default());
            Ok(Change {
                from: None,
                to: Some((path.into(), Node::File(index))),
            })
        })?;
        let model = self.clone();
        Ok(ModelFile { model, index })
    }

    fn open(&self, path: &Path) -> Result<Vec<u8>> {
        let world = self.0.lock();
        Ok(world.files[world.file(path)?].visible.clone())
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        self.change(|world| {
            let node = Node::File(world.file(from)?);
            Ok(Change {
                from: Some(from.into()),
                to: Some((to.into(), node)),
            })
        })
    }

    fn remove(&self, path: &Path) -> Result<()> {
        self.change(|world| {
            world.file(path)?;
            Ok(Change {
                from: Some(path.into()),
                to: None,
            })
        })
    }

    fn sync_directory(&self, path: &Path) -> Result<()> {
        let (mut world, extent, told) = self.step();
        if extent != Extent::Nothing && world.neglect != Some(Neglect::Directories) {
            let world = &mut *world;
            let synced = |change: &&mut Change| change.directory() == path;
            let all = world.pending.iter_mut().filter(synced).count();
            let count = if extent == Extent::Half { all / 2 } else { all };
            let mut left = count;
            world.pending.retain(|change| {
                let is_synced = change.directory() == path && left > 0;
                if is_synced {
                    left -= 1;
                    change.apply(&mut world.durable);
                }
                !is_synced
            });
        }
        told
    }
}

/// A file of a [`Model`].
#[derive(Debug)]
pub struct ModelFile {
    model: Model,
    index: usize,
}

impl Write for ModelFile {
    fn write(&mut self, bytes: &[u8]) -> Result<usize> {
        let (mut world, extent, told) = self.model.step();
        let count = match extent {
            Extent::Nothing => 0,
            Extent::Half => bytes.len() / 2,
            Extent::All => bytes.len(),
        };
        let file = &mut world.files[self.index];
        let offset = file.visible.len();
        file.visible.extend_from_slice(&bytes[..count]);
        file.writes.push((offset, bytes[..count].to_vec()));
        told.map(|()| count)
    }

    fn flush(&mut self) -> Result<()> {
        Ok(())
    }
}

impl Sink for ModelFile {
    /// After a failure the system considers the failed writes done, as Linux does: a later sync
    /// succeeds without them.
    fn sync(&mut self) -> Result<()> {
        let (mut world, extent, told) = self.model.step();
        let is_neglected = world.neglect == Some(Neglect::Files);
        let file = &mut world.files[self.index];
        match extent {
            _ if is_neglected => {}
            Extent::Nothing => file.writes.clear(),
            Extent::Half => *file = file.after(Fate::Truncated),
            Extent::All => file.sync(),
        }
        told
    }
}

impl Source for Vec<u8> {
    fn bytes(&self) -> Result<u64> {
        Ok(self.len() as u64)
    }

    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> Result<()> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let found = start
            .checked_add(buffer.len())
            .and_then(|end| self.get(start..end));
        buffer.copy_from_slice(found.ok_or(ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}
