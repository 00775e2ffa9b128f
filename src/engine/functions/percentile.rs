//! `percentile(scale, raw, group [, version])`: a lookup in the session's norms.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, LazyLock};

use arrow::array::{Array, AsArray, Float64Builder};
use arrow::datatypes::{DataType, Int64Type};
use async_trait::async_trait;
use datafusion::common::not_impl_err;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::async_udf::AsyncScalarUDFImpl;
use datafusion::logical_expr::{
    ColumnarValue, Documentation, ScalarFunctionArgs, ScalarUDFImpl, Signature, TypeSignature, Volatility,
};

use crate::engine::functions::FunctionInfo;
use crate::model::Scale;
use crate::model::keyed_norms::KeyedNorms;
use crate::model::norm::PUBLISHED;
use crate::norms::{GroupToken, NormStore};

pub(super) const INFO: FunctionInfo = FunctionInfo {
    name: "percentile",
    syntax: "percentile(scale text, raw integer, group text [, version text]) -> float",
    description: "The percentile of a raw score (for LFI: 320·LFI) in a norm group such as 'COUNTRY:Spain'; null if the group does \
                  not hold the score. The group 'published' is the published table, which answers every score.",
};

/// Loads each group that a batch names once, through the session's norm store and its cache.
#[derive(Debug)]
pub(super) struct Percentile {
    norms: Arc<NormStore>,
    signature: Signature,
}

impl Percentile {
    pub(super) fn new(norms: Arc<NormStore>) -> Self {
        let (text, raw) = (DataType::Utf8, DataType::Int64);
        let three = vec![text.clone(), raw, text.clone()];
        let four = three.iter().cloned().chain([text]).collect();
        // Volatile, so that calls with constants are left to execution: planning cannot wait for norms.
        let signature =
            Signature::one_of(vec![TypeSignature::Exact(three), TypeSignature::Exact(four)], Volatility::Volatile);
        Percentile { norms, signature }
    }
}

impl PartialEq for Percentile {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.norms, &other.norms)
    }
}

impl Eq for Percentile {}

impl Hash for Percentile {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.norms).hash(state);
    }
}

impl ScalarUDFImpl for Percentile {
    fn name(&self) -> &str {
        INFO.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Float64)
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        not_impl_err!("percentile() waits for norms and cannot be used here")
    }

    fn documentation(&self) -> Option<&Documentation> {
        static DOCUMENTATION: LazyLock<Documentation> = LazyLock::new(|| INFO.documentation());
        Some(&DOCUMENTATION)
    }
}

#[async_trait]
impl AsyncScalarUDFImpl for Percentile {
    async fn invoke_async_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let columns = args.args.iter().map(|value| value.to_array(args.number_rows)).collect::<Result<Vec<_>>>()?;
        let (scales, groups) = (columns[0].as_string::<i32>(), columns[2].as_string::<i32>());
        let raws = columns[1].as_primitive::<Int64Type>();
        let versions = columns.get(3).map(|column| column.as_string::<i32>());
        let mut loaded: HashMap<(&str, Option<&str>), Option<Arc<KeyedNorms>>> = HashMap::new();
        let mut percentiles = Float64Builder::with_capacity(args.number_rows);
        for row in 0..args.number_rows {
            let version = versions.filter(|versions| versions.is_valid(row)).map(|versions| versions.value(row));
            if scales.is_null(row) || raws.is_null(row) || groups.is_null(row) {
                percentiles.append_null();
                continue;
            }
            let Some(scale) = Scale::from_code(scales.value(row)) else {
                let known = Scale::ALL.map(Scale::code).join(", ");
                return Err(DataFusionError::Execution(format!(
                    "percentile(): '{}' is not a scale: {known}",
                    scales.value(row)
                )));
            };
            let Ok(raw) = i32::try_from(raws.value(row)) else {
                percentiles.append_null();
                continue;
            };
            let group = groups.value(row);
            if group == PUBLISHED {
                percentiles.append_value(self.norms.published_percentile(scale, raw));
                continue;
            }
            let norms = match loaded.entry((group, version)) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(new) => new.insert(self.load(group, version).await?),
            };
            percentiles.append_option(norms.as_ref().and_then(|norms| norms.percentile(scale, raw)));
        }
        Ok(ColumnarValue::Array(Arc::new(percentiles.finish())))
    }
}

impl Percentile {
    /// The norms of a group; one whose name is blank or holds two versions is in no table.
    async fn load(&self, group: &str, version: Option<&str>) -> Result<Option<Arc<KeyedNorms>>> {
        let token = match version {
            Some(version) => GroupToken::with_version(group, version),
            None => match group.parse() {
                Ok(token) => token,
                Err(_) => return Ok(None),
            },
        };
        let found = self.norms.find(&token).await.map_err(|error| DataFusionError::External(Box::new(error)))?;
        Ok(found.map(|found| Arc::clone(&found.norms)))
    }
}
