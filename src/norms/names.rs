//! Numbers for norm groups, so that results carry four bytes a percentile instead of a string.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use arrow::array::StringArray;

use crate::model::norm::{GroupId, PUBLISHED, PUBLISHED_ID};

/// The provenance texts of one store, numbered from [`PUBLISHED_ID`] in the order of their first use.
///
/// Holds one text for each group that ever answered, and forgets none: a number stays good for as long as the store lives.
#[derive(Debug)]
pub(crate) struct GroupNames {
    inner: RwLock<Inner>,
}

#[derive(Debug)]
struct Inner {
    ids: HashMap<Arc<str>, GroupId>,
    names: Vec<Arc<str>>,
    /// `names` as an array; made anew when it is asked for and has become too short.
    array: Arc<StringArray>,
}

impl GroupNames {
    pub(crate) fn new() -> Self {
        let published: Arc<str> = PUBLISHED.into();
        GroupNames {
            inner: RwLock::new(Inner {
                ids: HashMap::from([(Arc::clone(&published), PUBLISHED_ID)]),
                names: vec![published],
                array: Arc::new(StringArray::from_iter_values([PUBLISHED])),
            }),
        }
    }

    /// The number of a provenance text, given one if it has none yet.
    pub(crate) fn id(&self, name: &str) -> GroupId {
        if let Some(id) = self.inner.read().unwrap_or_else(PoisonError::into_inner).ids.get(name) {
            return *id;
        }
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        if let Some(id) = inner.ids.get(name) {
            return *id;
        }
        let id = inner.names.len() as GroupId;
        let name: Arc<str> = name.into();
        inner.names.push(Arc::clone(&name));
        inner.ids.insert(name, id);
        id
    }

    /// The texts by number: every number given out before the call is an index into the array.
    pub(crate) fn array(&self) -> Arc<StringArray> {
        {
            let inner = self.inner.read().unwrap_or_else(PoisonError::into_inner);
            if inner.array.value_offsets().len() == inner.names.len() + 1 {
                return Arc::clone(&inner.array);
            }
        }
        let mut inner = self.inner.write().unwrap_or_else(PoisonError::into_inner);
        inner.array = Arc::new(StringArray::from_iter_values(&inner.names));
        Arc::clone(&inner.array)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_keeps_its_number_and_the_published_table_is_number_zero() {
        let names = GroupNames::new();
        assert_eq!(names.array().value(0), "published");
        assert_eq!(names.id("published"), PUBLISHED_ID);
        let before = names.array();
        assert_eq!((names.id("Total"), names.id("COUNTRY:Spain|2026"), names.id("Total")), (1, 2, 1));
        assert_eq!(names.array().iter().flatten().collect::<Vec<_>>(), ["published", "Total", "COUNTRY:Spain|2026"]);
        assert_eq!(before.iter().flatten().count(), 1, "a snapshot does not change");
        assert!(Arc::ptr_eq(&names.array(), &names.array()), "an unchanged snapshot is shared");
    }
}
