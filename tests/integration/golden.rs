//! The golden sessions give the golden results, column by column.

use arrow::array::RecordBatch;
use arrow::datatypes::DataType;
use tempfile::tempdir;

use crate::support::{booleans, column, floats, golden, integers, lists, normstream, read_parquet, strings};

/// Fails unless a result has every column of the golden file, with equal values in equal order.
fn assert_equals_golden(result: &RecordBatch, expected: &str) {
    let expected = read_parquet(&golden(expected));
    assert_eq!(result.num_rows(), expected.num_rows());
    for field in expected.schema().fields() {
        let name = field.name();
        match field.data_type() {
            DataType::Int64 => assert_eq!(integers(result, name), integers(&expected, name), "{name}"),
            DataType::Boolean => assert_eq!(booleans(result, name), booleans(&expected, name), "{name}"),
            DataType::Float64 => assert_eq!(floats(result, name), floats(&expected, name), "{name}"),
            DataType::Utf8 => assert_eq!(strings(result, name), strings(&expected, name), "{name}"),
            DataType::List(_) => assert_eq!(lists(result, name), lists(&expected, name), "{name}"),
            other => panic!("the golden column {name} is of the unexpected type {other}"),
        }
    }
}

#[test]
fn golden_sessions_give_the_published_percentiles() {
    let folder = tempdir().unwrap();
    let out = folder.path().join("out.parquet");
    normstream().arg("score").arg(golden("sessions.parquet")).arg("--to").arg(&out).assert().success();
    let result = read_parquet(&out);
    assert_equals_golden(&result, "expected_published.parquet");

    let failed = booleans(&result, "ok").iter().filter(|ok| **ok == Some(false)).count();
    assert_eq!(failed, 56);
    assert_eq!(integers(&result, "session_id"), (1..=2_000).map(Some).collect::<Vec<_>>(), "in place, in order");
    let stages = strings(&result, "error_stage");
    assert_eq!(stages.iter().filter(|stage| stage.as_deref() == Some("validate")).count(), 56);
}

#[test]
fn golden_sessions_with_group_norms_give_the_percentiles_of_their_groups() {
    let folder = tempdir().unwrap();
    let out = folder.path().join("out.parquet");
    let mut command = normstream();
    command.arg("score").arg(golden("sessions.parquet")).arg("--to").arg(&out);
    command.arg("--norms").arg(golden("demo_groups.csv")).assert().success();
    assert_equals_golden(&read_parquet(&out), "expected_groups.parquet");
}

#[test]
fn results_have_the_documented_columns_in_the_documented_types() {
    let folder = tempdir().unwrap();
    let out = folder.path().join("out.parquet");
    normstream().arg("score").arg(golden("sessions.parquet")).arg("--to").arg(&out).assert().success();
    let result = read_parquet(&out);
    let schema = result.schema();
    let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
    assert_eq!(
        names.join(" "),
        "session_id user_id completed_at ok error_stage error_code error ce_raw ro_raw ac_raw ae_raw acce aero \
         assimilation_accommodation converging_diverging balance_acce balance_aero style backup_style intensity kendall_w \
         lfi flexibility_level context_styles ce_percentile ro_percentile ac_percentile ae_percentile acce_percentile \
         aero_percentile lfi_percentile ce_norm_group ro_norm_group ac_norm_group ae_norm_group acce_norm_group \
         aero_norm_group lfi_norm_group used_fallback truncated_scales flags"
    );
    for name in ["ce_raw", "acce", "balance_aero", "intensity"] {
        assert_eq!(column(&result, name).data_type(), &DataType::Int16, "{name}");
    }
    for name in ["style", "error_code", "lfi_norm_group", "flexibility_level"] {
        assert_eq!(column(&result, name).data_type(), &DataType::Utf8, "{name}");
    }
}
