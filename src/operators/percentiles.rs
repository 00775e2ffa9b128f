//! The percentile stage: finds each session's norm groups, has those that are new loaded, and runs the lookup kernel.

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::{FieldRef, Schema};
use async_trait::async_trait;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::TaskContext;
use datafusion::physical_plan::metrics::{Count, ExecutionPlanMetricsSet, MetricBuilder, Time};
use hashbrown::HashMap;

use crate::instrument::Instrument;
use crate::model::keyed_norms::ChainGroup;
use crate::norms::{Chain, ChainTemplate, GroupToken, NormStore};
use crate::operators::attributes::{Attribute, FIRST_ROWS, NULL_ID};
use crate::operators::norm_lookup::NormContext;
use crate::operators::percentile_keys::PercentileKeys;
use crate::operators::stage_exec::{PlanStage, StageWorker, external};
use crate::scoring::{ChainLink, NO_GROUP, PercentileInputs, Percentiles, Read};

/// Adds percentiles, their norm groups, `flexibility_level`, `used_fallback` and `truncated_scales`.
#[derive(Debug, Clone)]
pub struct PercentilesStage {
    instrument: Arc<Instrument>,
    kernel: Percentiles,
    chain: Chain,
    /// The attribute columns that the chain can be filled from: those of its attributes that the input has.
    attributes: Vec<Read>,
}

/// How many distinct values of an attribute, or combinations of them, a worker remembers before it begins anew.
const MOST_VALUES: usize = 1 << 16;
/// How many bytes of norms a worker keeps alive beside the store's own cache before it begins anew.
const MOST_BYTES: usize = 16 << 20;

/// What the rows of a group need while they are loaded, in bytes.
const ROWS_BYTES: usize = 8 << 10;

/// How many groups a worker loads together at most: so many that few of them lie in a row group alone.
const MOST_LOADS: usize = 4_096;

impl PercentilesStage {
    /// Percentiles by a norm chain, for sessions whose attributes are columns of `input`.
    ///
    /// An attribute of the chain that `input` lacks counts as null for every session.
    pub fn new(instrument: &Arc<Instrument>, chain: Chain, input: &Schema) -> Self {
        let mut attributes: Vec<Read> = Vec::new();
        for name in chain.attributes().into_iter().flat_map(Attribute::candidates) {
            let known = attributes.iter().any(|read| read.name == name);
            if let (false, Some((_, field))) = (known, input.column_with_name(name)) {
                attributes.push(Read::exactly(name, field.data_type().clone()));
            }
        }
        let kernel = Percentiles::new(instrument);
        PercentilesStage { instrument: Arc::clone(instrument), kernel, chain, attributes }
    }
}

impl PlanStage for PercentilesStage {
    fn name(&self) -> &'static str {
        "PercentilesExec"
    }

    fn reads(&self) -> Vec<Read> {
        self.kernel.reads().into_iter().chain(self.attributes.iter().cloned()).collect()
    }

    fn adds(&self) -> Vec<FieldRef> {
        self.kernel.adds()
    }

    fn first_rows(&self) -> Option<usize> {
        Some(FIRST_ROWS)
    }

    fn start(
        &self,
        partition: usize,
        context: &TaskContext,
        metrics: &ExecutionPlanMetricsSet,
    ) -> Result<Box<dyn StageWorker>> {
        let columns: Vec<String> = self.attributes.iter().map(|read| read.name.clone()).collect();
        let names = self.chain.attributes();
        let attributes = names.iter().map(|name| Attribute::new(name, &columns, &self.instrument)).collect();
        let store = NormContext::of(context)?;
        Ok(Box::new(PercentilesWorker {
            percentiles: PercentileKeys::new(store.published_scales().dictionary()),
            store,
            kernel: self.kernel.clone(),
            score_columns: self.kernel.reads().len(),
            attributes,
            links: self.chain.templates.iter().map(|template| Link::new(template, &names)).collect(),
            bytes: 0,
            lookups: MetricBuilder::new(metrics).counter("norm_lookups", partition),
            groups: MetricBuilder::new(metrics).counter("norm_groups", partition),
            load_time: MetricBuilder::new(metrics).subset_time("norm_load_time", partition),
        }))
    }
}

/// Memory: the norms of the groups that its sessions named, shared with the store's cache, and up to [`MOST_BYTES`] of them
/// after the store has evicted them; and the names of up to [`MOST_VALUES`] values an attribute.
struct PercentilesWorker {
    store: Arc<NormStore>,
    kernel: Percentiles,
    score_columns: usize,
    /// The attributes of the chain.
    attributes: Vec<Attribute>,
    /// The templates of the chain.
    links: Vec<Link>,
    percentiles: PercentileKeys,
    /// The norms and percentiles that these keep alive, in bytes.
    bytes: usize,
    lookups: Count,
    groups: Count,
    load_time: Time,
}

#[async_trait]
impl StageWorker for PercentilesWorker {
    async fn evaluate(&mut self, columns: &[ArrayRef]) -> Result<Vec<ArrayRef>> {
        self.forget_when_full();
        let (scores, attributes) = columns.split_at(self.score_columns);
        let rows = scores[0].len();
        let mut ids = Vec::with_capacity(self.attributes.len());
        for attribute in &mut self.attributes {
            ids.push(attribute.ids(rows, attributes)?);
        }
        let group_of_row: Vec<Vec<u32>> = self.links.iter_mut().map(|link| link.group_of_row(rows, &ids)).collect();
        self.load_new_groups().await?;

        let lookups = group_of_row.iter().flatten().filter(|&&group| group != NO_GROUP).count();
        self.lookups.add(lookups);
        self.store.record_hits(lookups as u64);

        let group_names: ArrayRef = self.store.group_names();
        let links = self.links.iter().zip(&group_of_row);
        let chain: Vec<ChainLink<'_>> =
            links.map(|(link, group_of_row)| ChainLink { groups: &link.groups, group_of_row }).collect();
        let inputs = PercentileInputs {
            chain: &chain,
            scope: self.store.options().scope,
            published: self.store.published_scales(),
            percentiles: &self.percentiles.array(),
            group_names: &group_names,
        };
        self.kernel.evaluate(scores, inputs).map_err(external)
    }
}

impl PercentilesWorker {
    fn forget_when_full(&mut self) {
        let values = self.attributes.iter().map(|attribute| attribute.values().len());
        let combinations = self.links.iter().map(|link| link.combinations.len());
        if self.bytes > MOST_BYTES || values.chain(combinations).any(|remembered| remembered > MOST_VALUES) {
            self.attributes.iter_mut().for_each(Attribute::forget);
            self.links.iter_mut().for_each(Link::forget);
            self.percentiles.forget();
            self.bytes = 0;
        }
    }

    /// Loads the groups that are new, of all links and many together: their rows need at most a fourth of what the store may keep.
    async fn load_new_groups(&mut self) -> Result<()> {
        let at_once = (self.store.options().cache_bytes / (4 * ROWS_BYTES)).clamp(1, MOST_LOADS);
        let timer = self.load_time.timer();
        let mut new: Vec<(GroupToken, usize, usize)> = Vec::new();
        for (number, link) in self.links.iter_mut().enumerate() {
            let (first, end) = (link.groups.len(), link.named(&self.attributes));
            link.groups.resize(end, None);
            new.extend((first..end).filter_map(|group| Some((link.token(group, &self.attributes)?, number, group))));
        }
        // Groups that are near each other in the order of names are near each other in a table.
        new.sort_unstable();
        let (tokens, places): (Vec<GroupToken>, Vec<(usize, usize)>) =
            new.into_iter().map(|(token, link, group)| (token, (link, group))).unzip();
        for (places, tokens) in places.chunks(at_once).zip(tokens.chunks(at_once)) {
            let found = self.store.find_all(tokens).await;
            let found = found.map_err(|error| DataFusionError::External(error.into()))?;
            for ((link, group), found) in places.iter().zip(found) {
                let Some(found) = found else { continue };
                let (first_key, more) = self.percentiles.first_key(found.norms.dictionary());
                self.bytes += found.norms.bytes() + more;
                self.groups.add(1);
                let norms = Arc::clone(&found.norms);
                self.links[*link].groups[*group] = Some(ChainGroup { id: found.id, first_key, norms });
            }
        }
        timer.done();
        Ok(())
    }
}

/// One template of the chain and the groups that it named so far.
struct Link {
    template: ChainTemplate,
    /// The template's attributes, by name and by place among the worker's.
    attributes: Vec<(String, usize)>,
    /// For a template of several attributes: the number of each combination of their values, and the combinations by number.
    combinations: HashMap<Box<[u32]>, u32>,
    by_number: Vec<Box<[u32]>>,
    /// The group of each value (of a template with one attribute: by the value's number less one) or combination.
    groups: Vec<Option<ChainGroup>>,
}

impl Link {
    fn new(template: &ChainTemplate, names: &[&str]) -> Self {
        let place = |name: &str| names.iter().position(|known| *known == name).map(|place| (name.to_owned(), place));
        Link {
            template: template.clone(),
            attributes: template.attributes().into_iter().filter_map(place).collect(),
            combinations: HashMap::new(),
            by_number: Vec::new(),
            groups: Vec::new(),
        }
    }

    fn forget(&mut self) {
        self.combinations.clear();
        self.by_number.clear();
        self.groups.clear();
    }

    /// The group of each row, given the numbers of each attribute's values.
    fn group_of_row(&mut self, rows: usize, ids: &[Option<Vec<u32>>]) -> Vec<u32> {
        let columns: Option<Vec<&Vec<u32>>> = self.attributes.iter().map(|(_, place)| ids[*place].as_ref()).collect();
        match columns.as_deref() {
            None => vec![NO_GROUP; rows],
            Some([]) => vec![0; rows],
            // The number of null, 0, wraps to NO_GROUP.
            Some([ids]) => ids.iter().map(|id| id.wrapping_sub(1)).collect(),
            Some(columns) => {
                let mut combination = vec![NULL_ID; columns.len()];
                (0..rows)
                    .map(|row| {
                        for (slot, ids) in combination.iter_mut().zip(columns) {
                            *slot = ids[row];
                        }
                        self.number(&combination)
                    })
                    .collect()
            }
        }
    }

    fn number(&mut self, combination: &[u32]) -> u32 {
        if combination.contains(&NULL_ID) {
            return NO_GROUP;
        }
        if let Some(&number) = self.combinations.get(combination) {
            return number;
        }
        let number = self.by_number.len() as u32;
        self.by_number.push(combination.into());
        self.combinations.insert(combination.into(), number);
        number
    }

    /// How many groups the template has named so far.
    fn named(&self, attributes: &[Attribute]) -> usize {
        match self.attributes.as_slice() {
            [] => 1,
            [(_, place)] => attributes[*place].values().len(),
            _ => self.by_number.len(),
        }
    }

    /// The token of a group.
    fn token(&self, group: usize, attributes: &[Attribute]) -> Option<GroupToken> {
        self.template.expand(|name| {
            let slot = self.attributes.iter().position(|(known, _)| known == name)?;
            let id = match self.by_number.get(group) {
                Some(combination) => combination[slot],
                None => group as u32 + 1,
            };
            attributes[self.attributes[slot].1].values().value(id)
        })
    }
}
