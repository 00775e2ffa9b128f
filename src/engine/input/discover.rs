//! From what the user wrote to the files it names.

use std::collections::BTreeMap;

use globset::GlobBuilder;
use object_store::ObjectMeta;
use object_store::path::Path;

use crate::engine::EngineError;
use crate::engine::input::format::{Compression, FileFormat, compression_of_name, format_of_name};
use crate::storage::{Location, Storage};
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

/// The files that inputs name, in the order of the inputs and, within a folder or a pattern, by path.
///
/// An input is a file, a folder (all files in it, at any depth, whose names say their format; of a table those of its newest
/// version) or a pattern with `*`, `?`, `[…]`
/// or `{…}` (where `**` spans folders); a local path, or a URL. An input that names nothing is an error.
///
/// Files are found in a version: one that changes afterwards is an error for whoever reads it.
pub async fn discover(
    storage: &Storage,
    inputs: &[String],
    format: Option<FileFormat>,
) -> Result<Vec<FoundFile>, EngineError> {
    let mut found = Vec::new();
    for input in inputs {
        let location = storage.open(input)?;
        let before = found.len();
        let whole = location.list_files().await?;
        let is_file = matches!(whole.as_slice(), [only] if only.location == location.path);
        if is_file {
            found.extend(
                whole.into_iter().map(|meta| identify(&location, meta, format)).collect::<Result<Vec<_>, _>>()?,
            );
        } else if whole.is_empty() && input.contains(SPECIAL) {
            for meta in matching(storage, input).await? {
                found.push(identify(&location, meta, format)?);
            }
        } else {
            match live_files(storage, &location, &whole).await? {
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
                        found.push(identify(&location, meta, Some(FileFormat::Parquet))?);
                    }
                }
                // In a folder, files that are no session files may lie beside them: only those whose names say so are read.
                None => {
                    let known = whole.into_iter().filter(|meta| format_of_name(meta.location.as_ref()).is_some());
                    found.extend(known.filter_map(|meta| identify(&location, meta, format).ok()));
                }
            }
        }
        if found.len() == before {
            return Err(EngineError::NoFiles { target: input.clone() });
        }
    }
    storage.pin(found.iter_mut().map(|file| (&mut file.location, &file.meta)));
    Ok(found)
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
