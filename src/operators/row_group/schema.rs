//! From the schema of a plan to that of the file: documented Arrow types, Parquet columns, writer properties.

use std::sync::Arc;

use arrow::datatypes::{DataType, Schema, SchemaRef};
use parquet::arrow::{ArrowSchemaConverter, add_encoded_arrow_schema_to_metadata};
use parquet::basic::{Compression, Encoding, Type, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterPropertiesPtr};
use parquet::schema::types::{ColumnDescPtr, SchemaDescriptor};

use super::RowGroupOptions;
use super::error::{Result, RowGroupError};
use crate::model::result::documented_schema;

/// How rows of a plan are laid out in a file. The same for every row group, from the plan's schema and the options alone.
pub(super) struct FileSchema {
    /// The documented schema, as readers see it.
    pub(super) documented: SchemaRef,
    pub(super) parquet: SchemaDescriptor,
    pub(super) properties: WriterPropertiesPtr,
}

impl FileSchema {
    pub(super) fn try_new(plan: &Schema, options: &RowGroupOptions) -> Result<Self> {
        let documented = Arc::new(documented_schema(plan));
        let parquet = ArrowSchemaConverter::new().convert(&documented).map_err(RowGroupError::Encode)?;
        let zstd = ZstdLevel::try_new(options.zstd_level).map_err(|_| RowGroupError::Option {
            option: "zstd_level",
            value: options.zstd_level.into(),
            expected: "1 to 22",
        })?;
        let mut properties = WriterProperties::builder()
            .set_created_by(options.created_by.clone())
            .set_compression(Compression::ZSTD(zstd))
            .set_statistics_enabled(EnabledStatistics::Page)
            .set_data_page_row_count_limit(options.page_rows);
        for (leaf, column) in parquet.columns().iter().enumerate() {
            let field = documented.field(parquet.get_column_root_idx(leaf));
            // Identifiers and times: no dictionary, but small differences. A byte has few values whatever it stands for.
            if matches!(column.physical_type(), Type::INT32 | Type::INT64)
                && !matches!(field.data_type(), DataType::UInt8 | DataType::Int8)
            {
                properties = properties
                    .set_column_dictionary_enabled(column.path().clone(), false)
                    .set_column_encoding(column.path().clone(), Encoding::DELTA_BINARY_PACKED);
            }
        }
        let mut properties = properties.build();
        add_encoded_arrow_schema_to_metadata(&documented, &mut properties);
        Ok(Self { documented, parquet, properties: Arc::new(properties) })
    }

    /// The Parquet columns of the column at `root`: one, or for structs and maps one per leaf.
    pub(super) fn leaves(&self, root: usize) -> &[ColumnDescPtr] {
        let leaves = self.parquet.columns();
        let root_of = |leaf: &usize| self.parquet.get_column_root_idx(*leaf);
        let before = (0..leaves.len()).filter(|leaf| root_of(leaf) < root).count();
        let own = (0..leaves.len()).filter(|leaf| root_of(leaf) == root).count();
        &leaves[before..before + own]
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use arrow::datatypes::Field;
    use parquet::schema::types::ColumnPath;

    use super::*;

    #[test]
    fn bytes_are_written_through_a_dictionary_and_other_integers_as_differences() {
        let types = [DataType::UInt8, DataType::Int8, DataType::Int32, DataType::Int64, DataType::Date32];
        let fields = types.iter().map(|data_type| Field::new(data_type.to_string(), data_type.clone(), true));
        let plan = Schema::new(fields.collect::<Vec<_>>());
        let properties = FileSchema::try_new(&plan, &RowGroupOptions::default()).unwrap().properties;
        let written = types.map(|data_type| {
            let path = ColumnPath::from(data_type.to_string());
            (properties.dictionary_enabled(&path), properties.encoding(&path))
        });
        let (dictionary, differences) = ((true, None), (false, Some(Encoding::DELTA_BINARY_PACKED)));
        assert_eq!(written, [dictionary, dictionary, differences, differences, differences]);
    }
}
