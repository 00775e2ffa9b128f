//! Bytes of an object that are fetched before anybody has said which of them are needed: while a footer is on its way that tells
//! where the columns are, the rows that the file begins with are on theirs.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt, Shared};
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectMeta, ObjectStore, Result};
use tokio::task::JoinSet;

/// How much one request fetches.
const BLOCK: u64 = 4 << 20;
/// How many requests the beginning of an object is.
const BLOCKS: u64 = 2;

/// Marks a request as one that can be done without. It is sent only if a pool has a permit for it that nobody else wants now.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spare;

impl Spare {
    /// What comes of a request that is not sent.
    pub(crate) fn refused(self) -> object_store::Error {
        object_store::Error::Generic { store: "normstream", source: "no permit to spare".into() }
    }
}

/// Parts of one object, here or on their way. Clones share them; what is on its way when the last one is dropped is given up.
///
/// Memory: 8 MiB for the beginning of an object, and what [`Ahead::add`] was given.
#[derive(Clone, Default)]
pub(crate) struct Ahead(Vec<Block>);

#[derive(Clone)]
struct Block {
    range: Range<u64>,
    content: Shared<BoxFuture<'static, Option<Content>>>,
}

/// What an answer brought.
#[derive(Clone)]
struct Content {
    e_tag: String,
    bytes: Bytes,
}

impl Ahead {
    /// Begins to fetch what an object begins with, if there are permits to spare. It need not be there, or may be smaller.
    pub(crate) fn beginning_of(store: &Arc<dyn ObjectStore>, path: &Path) -> Ahead {
        let block = |number: u64| {
            let range = number * BLOCK..(number + 1) * BLOCK;
            let (store, path, wanted) = (Arc::clone(store), path.clone(), range.clone());
            let mut task = JoinSet::new();
            task.spawn(async move {
                let fetched = fetch(store.as_ref(), &path, wanted).await;
                // Whoever needs the bytes then asks for them, and meets the error if there still is one.
                fetched.inspect_err(|error| tracing::debug!(object = %path, %error, "not read ahead")).ok().flatten()
            });
            let content = async move { task.join_next().await?.ok()? };
            Block { range, content: content.boxed().shared() }
        };
        Ahead((0..BLOCKS).map(block).collect())
    }

    /// Adds the last bytes of the object that `meta` is of, which an answer has brought. They are taken before what is on its way.
    pub(crate) fn add(&mut self, meta: &ObjectMeta, tail: Bytes) {
        let Some(e_tag) = meta.e_tag.clone() else { return };
        let range = meta.size.saturating_sub(tail.len() as u64)..meta.size;
        if range.start == 0 {
            self.0.clear();
        }
        let content = std::future::ready(Some(Content { e_tag, bytes: tail }));
        self.0.insert(0, Block { range, content: content.boxed().shared() });
    }

    /// The bytes of `range`, which is within the object, if all of them come, and in the version `e_tag`.
    pub(crate) async fn get(&self, range: &Range<u64>, e_tag: &str) -> Option<Bytes> {
        let mut pieces = Vec::new();
        for (block, wanted) in self.blocks_of(range)? {
            let Content { e_tag: found, bytes } = block.content.clone().await?;
            if !is_same(&found, e_tag) || wanted.end > bytes.len() {
                return None;
            }
            pieces.push(bytes.slice(wanted));
        }
        Some(match pieces.as_slice() {
            [whole] => whole.clone(),
            _ => pieces.concat().into(),
        })
    }

    /// The blocks that a range is in, with the places in them; `None` if part of it is in none.
    fn blocks_of(&self, range: &Range<u64>) -> Option<Vec<(&Block, Range<usize>)>> {
        let mut found = Vec::new();
        let mut at = range.start;
        while at < range.end {
            let block = self.0.iter().find(|block| block.range.contains(&at))?;
            let end = range.end.min(block.range.end);
            let start = block.range.start;
            found.push((block, (at - start) as usize..(end - start) as usize));
            at = end;
        }
        Some(found)
    }
}

/// The bytes of a range as far as the object has them; nothing if their version is not known.
async fn fetch(store: &dyn ObjectStore, path: &Path, range: Range<u64>) -> Result<Option<Content>> {
    let start = range.start;
    let mut options = GetOptions { range: Some(GetRange::Bounded(range)), ..GetOptions::default() };
    options.extensions.insert(Spare);
    let answer = store.get_opts(path, options).await?;
    let Some(e_tag) = answer.meta.e_tag.clone().filter(|_| answer.range.start == start) else { return Ok(None) };
    Ok(Some(Content { e_tag, bytes: answer.bytes().await? }))
}

/// Whether two ETags are one: listings of some stores leave the quotes out.
pub(crate) fn is_same(one: &str, other: &str) -> bool {
    one.trim_matches('"') == other.trim_matches('"')
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use object_store::ObjectStoreExt;
    use object_store::memory::InMemory;

    use super::*;

    const SIZE: usize = 9 << 20;

    fn content() -> Vec<u8> {
        (0..SIZE).map(|place| (place % 251) as u8).collect()
    }

    async fn stored(size: usize) -> (Arc<dyn ObjectStore>, ObjectMeta) {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let path = Path::from("sessions.parquet");
        store.put(&path, content()[..size].to_vec().into()).await.unwrap();
        let meta = store.head(&path).await.unwrap();
        (store, meta)
    }

    #[tokio::test]
    async fn what_an_object_begins_and_ends_with_is_here_and_nothing_between() {
        let (store, meta) = stored(SIZE).await;
        let e_tag = meta.e_tag.clone().unwrap();
        let mut ahead = Ahead::beginning_of(&store, &meta.location);
        ahead.add(&meta, Bytes::from(content()[SIZE - 1000..].to_vec()));
        let size = SIZE as u64;
        for range in [0..10, 5..(8 << 20), (4 << 20) - 7..(4 << 20) + 7, size - 1000..size, size - 8..size - 2, 7..7] {
            let expected = &content()[range.start as usize..range.end as usize];
            assert_eq!(ahead.get(&range, &e_tag).await.unwrap(), expected, "{range:?}");
        }
        for range in [5..(8 << 20) + 1, (8 << 20)..(8 << 20) + 1, size - 1001..size] {
            assert_eq!(ahead.get(&range, &e_tag).await, None, "{range:?}");
        }
        assert_eq!(ahead.get(&(0..10), "another version").await, None);
    }

    #[tokio::test]
    async fn an_object_may_be_smaller_than_what_was_asked_for_or_not_be_there() {
        let (store, meta) = stored(100).await;
        let e_tag = meta.e_tag.clone().unwrap();
        let mut ahead = Ahead::beginning_of(&store, &meta.location);
        assert_eq!(ahead.get(&(20..100), &e_tag).await.unwrap(), &content()[20..100]);
        assert_eq!(ahead.get(&(20..101), &e_tag).await, None);
        ahead.add(&meta, content()[..100].to_vec().into());
        assert_eq!((ahead.0.len(), ahead.get(&(0..100), &e_tag).await), (1, Some(content()[..100].to_vec().into())));
        assert_eq!(Ahead::beginning_of(&store, &Path::from("no such")).get(&(0..1), &e_tag).await, None);
        assert_eq!(Ahead::default().get(&(0..1), &e_tag).await, None);
    }
}
