//! From what the user wrote to the files it names.

use std::collections::BTreeMap;

use bytes::Bytes;
use futures::{FutureExt, StreamExt, TryStreamExt, stream};
use globset::GlobBuilder;
use object_store::ObjectMeta;
use object_store::path::Path;

use crate::engine::EngineError;
use crate::engine::input::footer::TAIL;
use crate::engine::input::format::{Compression, FileFormat, compression_of_name, format_of_name};
use crate::storage::{Ahead, Location, Scheme, Storage, StorageError};
use crate::table::{BOOKKEEPING, DELTA_LOG, Table};

/// A session file that was found: where it is, its size and ETag, and what it is.
#[derive(Debug, Clone)]
pub struct FoundFile {
    /// Where it is.
    pub location: Location,
    /// Its size, modification time and ETag.
    pub meta: ObjectMeta,
    /// Its format.
    pub format: FileFormat,
    /// How it is compressed.
    pub compression: Compression,
}

/// The characters that make an input a pattern.
const SPECIAL: [char; 4] = ['*', '?', '[', '{'];

/// What is going to be read of files, as far as it is known when they are looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// All rows of all of them, from the first on: how the first one begins is fetched while it is looked for.
    Everything,
    /// What a query will ask for.
    OnDemand,
}

/// How many inputs are looked for at once.
const LOOKED_FOR_AT_ONCE: usize = 8;
/// Of how many inputs the footer is fetched with the answer that finds them. It stays in memory.
const WITH_FOOTER: usize = 32;

/// The files that inputs name, in the order of the inputs and, within a folder or a pattern, by path.
///
/// An input is a file, a folder (all files in it, at any depth, whose names say their format; of a table those of its newest
/// version) or a pattern with `*`, `?`, `[…]`
/// or `{…}` (where `**` spans folders); a local path, or a URL. An input that names nothing is an error.
///
/// Files are found in a version: one that changes afterwards is an error for whoever reads it. Of Parquet files of another machine
/// some of the first inputs' bytes are fetched with them, and are not fetched again: 12 MiB at most.
pub async fn discover(
    storage: &Storage,
    inputs: &[String],
    format: Option<FileFormat>,
    reading: Reading,
) -> Result<Vec<FoundFile>, EngineError> {
    let looks = inputs.iter().enumerate().map(|(number, input)| {
        let with_beginning = number == 0 && reading == Reading::Everything;
        Look { storage, input, format, with_beginning, with_footer: number < WITH_FOOTER }.find().boxed()
    });
    let looks: Vec<_> = looks.collect();
    let found: Vec<Vec<(FoundFile, Ahead)>> = stream::iter(looks).buffered(LOOKED_FOR_AT_ONCE).try_collect().await?;
    let (mut files, ahead): (Vec<FoundFile>, Vec<Ahead>) = found.into_iter().flatten().unzip();
    let with_ahead = files.iter_mut().zip(ahead);
    storage.pin_with_ahead(with_ahead.map(|(file, ahead)| (&mut file.location, &file.meta, ahead)));
    Ok(files)
}

/// The search for the files of one input.
struct Look<'a> {
    storage: &'a Storage,
    input: &'a str,
    format: Option<FileFormat>,
    with_beginning: bool,
    with_footer: bool,
}

impl Look<'_> {
    /// The files, with what was fetched of each.
    async fn find(self) -> Result<Vec<(FoundFile, Ahead)>, EngineError> {
        let location = self.storage.open(self.input)?;
        let found = match self.find_object(&location).await? {
            Some((meta, ahead)) => vec![(identify(&location, meta, self.format)?, ahead)],
            None => {
                let found = match self.find_files(&location).await {
                    // Few web servers list anything: there, what is no file is nothing.
                    Err(EngineError::Storage(StorageError::Store { .. }))
                        if location.scheme() == Scheme::Http && location.may_be_object() =>
                    {
                        Vec::new()
                    }
                    found => found?,
                };
                let mut found: Vec<_> = found.into_iter().map(|file| (file, Ahead::default())).collect();
                if let Some((file, ahead)) = found.first_mut()
                    && self.reads_beginning_of(&location, file.format)
                    && file.meta.size > TAIL
                {
                    *ahead = Ahead::beginning_of(&location.store, &file.meta.location);
                }
                found
            }
        };
        if found.is_empty() {
            return Err(EngineError::NoFiles { target: self.input.to_owned() });
        }
        Ok(found)
    }

    /// Whether it is worth while to fetch how the first file begins before its footer is here.
    fn reads_beginning_of(&self, at: &Location, format: FileFormat) -> bool {
        self.with_beginning && has_footer(at, format)
    }

    /// The object at a location, if there is one.
    async fn find_object(&self, at: &Location) -> Result<Option<(ObjectMeta, Ahead)>, EngineError> {
        if !at.may_be_object() {
            return Ok(None);
        }
        let format = self.format.or_else(|| Some(format_of_name(at.path.filename()?)?.0));
        let with_footer = self.with_footer && format.is_some_and(|format| has_footer(at, format));
        let mut ahead = Ahead::default();
        if format.is_some_and(|format| self.reads_beginning_of(at, format)) {
            ahead = Ahead::beginning_of(&at.store, &at.path);
        }
        let found = match with_footer {
            true => at.head_with_tail(TAIL).await,
            false => at.head().await.map(|meta| (meta, Bytes::new())),
        };
        match found {
            Ok((meta, tail)) => {
                ahead.add(&meta, tail);
                Ok(Some((meta, ahead)))
            }
            Err(StorageError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The files of a folder, a table or a pattern.
    async fn find_files(&self, location: &Location) -> Result<Vec<FoundFile>, EngineError> {
        let whole = location.list_folder().await?;
        let mut found = Vec::new();
        if whole.is_empty() && self.input.contains(SPECIAL) {
            for meta in matching(self.storage, self.input).await? {
                found.push(identify(location, meta, self.format)?);
            }
            return Ok(found);
        }
        match live_files(self.storage, location, &whole).await? {
            // Of a table, those that its log says are live.
            Some(live) => {
                let mut listed: BTreeMap<Path, ObjectMeta> =
                    whole.into_iter().map(|meta| (meta.location.clone(), meta)).collect();
                for file in live {
                    // One that has moved up since the folder was listed is still to be read.
                    let meta = match listed.remove(&file.path) {
                        Some(meta) => meta,
                        None => file.head().await?,
                    };
                    found.push(identify(location, meta, Some(FileFormat::Parquet))?);
                }
            }
            // In a folder, files that are no session files may lie beside them: only those whose names say so are read.
            None => {
                let known = whole.into_iter().filter(|meta| format_of_name(meta.location.as_ref()).is_some());
                found.extend(known.filter_map(|meta| identify(location, meta, self.format).ok()));
            }
        }
        Ok(found)
    }
}

/// Whether a file is read by ranges that its end tells, over a network.
fn has_footer(at: &Location, format: FileFormat) -> bool {
    at.scheme().is_remote() && format == FileFormat::Parquet
}

/// The live files of a folder that is a table, or that one has been begun in; `None` for any other folder.
async fn live_files(
    storage: &Storage,
    folder: &Location,
    objects: &[ObjectMeta],
) -> Result<Option<Vec<Location>>, EngineError> {
    let has_log = |object: &ObjectMeta| {
        let mut below = object.location.prefix_match(&folder.path).into_iter().flatten();
        below.next().is_some_and(|part| [DELTA_LOG, BOOKKEEPING].contains(&part.as_ref()))
    };
    if !objects.iter().any(has_log) {
        return Ok(None);
    }
    let snapshot = match Table::open(storage, folder).await? {
        Some(table) => table.snapshot().await?,
        None => None,
    };
    Ok(Some(match snapshot {
        Some(snapshot) => snapshot.live_files().await?,
        None => Vec::new(),
    }))
}

/// The objects whose path matches a pattern, by path.
async fn matching(storage: &Storage, input: &str) -> Result<Vec<ObjectMeta>, EngineError> {
    let first_special = input.find(SPECIAL).unwrap_or(input.len());
    let (folder, pattern) = input.split_at(input[..first_special].rfind('/').map_or(0, |slash| slash + 1));
    let prefix = storage.open(if folder.is_empty() { "./" } else { folder })?;
    let pattern = format!("{}/{pattern}", globset::escape(prefix.path.as_ref()));
    let glob = GlobBuilder::new(pattern.trim_start_matches('/'))
        .literal_separator(true)
        .build()
        .map_err(|source| EngineError::Pattern { target: input.to_owned(), source })?
        .compile_matcher();
    let mut matching = prefix.list_files().await?;
    matching.retain(|meta| glob.is_match(meta.location.as_ref()));
    Ok(matching)
}

fn identify(near: &Location, meta: ObjectMeta, format: Option<FileFormat>) -> Result<FoundFile, EngineError> {
    let location = if meta.location == near.path { near.clone() } else { near.at(meta.location.clone()) };
    let name = meta.location.filename().unwrap_or_default();
    let (_, compression) = compression_of_name(name);
    let (format, compression) = match (format, format_of_name(name)) {
        (Some(format), _) => (format, if format.is_text() { compression } else { Compression::None }),
        (None, Some(known)) => known,
        (None, None) => return Err(EngineError::UnknownFormat { file: location.to_string() }),
    };
    Ok(FoundFile { location, meta, format, compression })
}
