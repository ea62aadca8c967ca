-- The store: tables, views, and a comment on each and on every column.
--
-- Run once, in one transaction, when a store is created. Keys are made from content (keys.py) and
-- every child carries its parent's key. There are no foreign keys (DuckDB then refuses to delete
-- parent and child in one transaction) and no keys on stored_channels (they triple the insert
-- time); tests/store/test_store.py holds the tables together instead.
--
-- Tables named stored_* hold what there is most of in as few bytes as it needs: measured values as
-- float, SQNR to 0.001 dB, nothing that follows from other columns. The view without the prefix
-- has it in full, in double precision; queries read the view.
--
-- A word means one thing everywhere: a column without a comment of its own takes the comment of
-- the column of the same name that has one (schema.py copies it).

-- Grain: one row per fact about this file.
create table store_info (
    key varchar not null,
    value varchar not null,
    primary key (key)
);

comment on table store_info is 'What this file is: one row per fact.';
comment on column store_info.key is 'What the fact is about, such as schema_version.';
comment on column store_info.value is 'The fact itself, as text.';

-- Grain: one row per model file and folding choice.
create table models (
    model_id bigint not null,
    model varchar not null,
    sha256 varchar not null,
    folded boolean not null,
    source varchar not null,
    file_bytes bigint not null,
    file_format varchar not null default 'ONNX',
    producer varchar,
    ir_version integer,
    opset integer,
    ingested_at timestamp not null,
    ingest_seconds double not null,
    layer_count integer not null,
    weight_count bigint not null,
    quantstore_version varchar not null,
    measures_version integer not null,
    tags varchar[] not null default [],
    note varchar not null default '',
    primary key (model_id),
    unique (model),
    unique (sha256, folded)
);

comment on table models is 'One row per model file and folding choice.';
comment on column models.model_id is 'Key of the model: 63 bits of the SHA-256 of sha256 and folded, the same in every store.';
comment on column models.model is 'Name of the model, unique; the file''s stem unless chosen otherwise.';
comment on column models.sha256 is 'SHA-256 of the file, continued over each external data file in order of first use.';
comment on column models.folded is 'Whether BatchNormalization was folded into the weights (not with --no-fold).';
comment on column models.source is 'Path or upload name the model was read from.';
comment on column models.file_bytes is 'Size of the file and its external data, in bytes.';
comment on column models.file_format is 'ONNX, QONNX, TensorFlow Lite, safetensors or GGUF. Only ONNX files are run.';
comment on column models.producer is 'Program that wrote the file, with its version, as the file says.';
comment on column models.ir_version is 'Version of the ONNX file format.';
comment on column models.opset is 'Version of the default ONNX operator set.';
comment on column models.ingested_at is 'When the model was stored, UTC.';
comment on column models.ingest_seconds is 'Time from opening the file to the last measurement, in seconds.';
comment on column models.layer_count is 'Number of rows in layers.';
comment on column models.weight_count is 'Number of weights; a tensor that several layers share counts once.';
comment on column models.quantstore_version is 'Release that measured the model.';
comment on column models.measures_version is 'Version of the measurements; an older one is measured anew on ingest.';
comment on column models.tags is 'Words that somebody gave the model to find it again, sorted; they survive a new measurement.';
comment on column models.note is 'What somebody wrote about the model; it survives a new measurement.';

-- Grain: one row per weight operand of a node.
create table layers (
    layer_id bigint not null,
    model_id bigint not null,
    depth integer not null,
    layer varchar not null,
    module_path varchar,
    operand varchar not null,
    op_type varchar not null,
    op_family varchar not null,
    weight_name varchar not null,
    weight_dtype varchar not null,
    shape integer[] not null,
    channel_axis integer,
    channel_count integer not null,
    group_count integer not null,
    is_depthwise boolean not null,
    weight_count bigint not null,
    nonfinite_count bigint not null,
    batchnorm_folded boolean not null,
    mul_folded boolean not null,
    already_quantized boolean not null,
    stored_scheme varchar,
    stored_step double,
    attributes varchar,
    -- numerics/measures.py: a column for each measure; schema.py fills it in.
);

comment on table layers is 'One row per weight operand of a node: where it is, how it is stored and what its effective weights look like.';
comment on column layers.layer_id is 'Key of the layer: 63 bits of the SHA-256 of model_id, layer and operand, the same in every store.';
comment on column layers.model_id is 'The model the layer belongs to.';
comment on column layers.depth is 'Position among the model''s layers in graph order, from 0.';
comment on column layers.layer is 'Name of the node, or of its first output; repeated names carry #2, #3; inside a subgraph outer/attribute/inner.';
comment on column layers.module_path is 'Module of the exported program that the node comes from, such as backbone.layer1.0; NULL where the file does not say.';
comment on column layers.operand is 'Name that the ONNX operator gives to this input, such as W or B.';
comment on column layers.op_type is 'ONNX operator, such as Conv.';
comment on column layers.op_family is 'Group of operators: conv, conv_transpose, linear, recurrent, embedding or attention.';
comment on column layers.weight_name is 'Name of the stored tensor.';
comment on column layers.weight_dtype is 'Type the tensor is stored in, such as float32.';
comment on column layers.shape is 'Dimensions of the weights as the node reads them: those of the stored tensor, unless the graph reshapes it before.';
comment on column layers.channel_axis is 'Axis of shape that counts output channels; NULL where the whole tensor is one channel. In a recurrent layer the directions, axis 0, count as well, one after another, and in a ConvTranspose the groups.';
comment on column layers.channel_count is 'Number of output channels, each with a scale of its own under a per-channel scheme; the groups of a ConvTranspose share theirs, as QuantizeLinear has it.';
comment on column layers.group_count is 'Groups of a convolution, 1 otherwise.';
comment on column layers.is_depthwise is 'Whether each group of a convolution reads a single input channel (and there are several).';
comment on column layers.weight_count is 'Number of weights in the tensor, NaN and infinities included.';
comment on column layers.nonfinite_count is 'NaN and infinite weights; they are left out of every other figure.';
comment on column layers.batchnorm_folded is 'Whether a BatchNormalization that alone follows is folded into these weights.';
comment on column layers.mul_folded is 'Whether a constant Mul that alone follows is folded into these weights.';
comment on column layers.already_quantized is 'Whether the file stores integers, or makes float weights that lie on a grid by rounding them itself; errors then measure a second rounding; what the first one lost is unknown.';
comment on column layers.stored_scheme is 'How the file stores the integers, such as uint8 per tensor or uint4 per block of 32; or the grid of float weights that it rounds itself, such as float on an int8 grid per channel.';
comment on column layers.stored_step is 'Scale of the stored integers or step of the grid, the largest where there are several, in weight units; NULL where the graph computes the weights from them in several steps.';
comment on column layers.attributes is 'Attributes of the node as JSON, such as {"strides": [2, 2]}; NULL where nobody recorded them.';
-- numerics/measures.py: a comment for each measure; schema.py fills it in.

-- Grain: one row per output channel of a layer.
create table stored_channels (
    layer_id bigint not null,
    channel integer not null,
    weight_min float,
    whisker_low float,
    q1 float,
    median float,
    q3 float,
    whisker_high float,
    weight_max float,
    mean float,
    std float,
    outlier_count bigint not null,
    nonzero_count bigint not null,
    -- schemes.py: columns of each int8 scheme; schema.py fills it in.
);

comment on table stored_channels is
'One row per output channel of a layer: what the views channels and channel_errors show.';
comment on column stored_channels.channel is 'Index of the output channel, from 0.';
comment on column stored_channels.whisker_low is 'Smallest weight inside Tukey''s fences.';
comment on column stored_channels.whisker_high is 'Largest weight inside Tukey''s fences.';
comment on column stored_channels.nonzero_count is
'Weights of the channel that are finite and not 0; where an earlier release measured it, a number that zeroed_fraction is exact with.';
-- schemes.py: comments on these columns; schema.py fills it in.

-- Grain: one row per quantization scheme that is measured.
create table schemes (
    scheme varchar not null,
    format varchar not null,
    bits integer not null,
    granularity varchar not null,
    is_symmetric boolean not null,
    clip varchar not null,
    description varchar not null,
    primary key (scheme)
);

comment on table schemes is 'One row per quantization scheme that is measured.';
comment on column schemes.scheme is 'Name of the scheme.';
comment on column schemes.format is 'Number format of the codes, such as int8.';
comment on column schemes.bits is 'Bits per weight.';
comment on column schemes.granularity is 'Who shares one scale: tensor, channel or block.';
comment on column schemes.is_symmetric is 'Whether the zero point is 0 and the codes lie evenly around it.';
comment on column schemes.clip is 'How the range is found; minmax lets the extreme weights set it.';
comment on column schemes.description is 'Codes and scale in one sentence.';

-- Grain: one row per target that a model can be run for.
create table targets (
    target varchar not null,
    scheme varchar not null,
    activations varchar,
    placement varchar,
    description varchar not null,
    primary key (target)
);

comment on table targets is
'One row per target: what hardware and its tools do with weights and activations.';
comment on column targets.target is 'Name of the target.';
comment on column targets.scheme is
'Scheme that its weights are rounded under; one with a scale that is a power of two is no row of schemes.';
comment on column targets.activations is
'Grid of its activations, such as uint8 asymmetric; NULL where they stay in float.';
comment on column targets.placement is
'Which activations are rounded: everywhere, or the inputs of some operators; NULL where they stay in float.';
comment on column targets.description is 'What the target is, in full sentences.';

-- Grain: one row per layer and scheme.
create table stored_errors (
    layer_id bigint not null,
    scheme varchar not null,
    -- Squares leave the range of float where weights do not.
    mse double,
    max_abs_error float,
    sqnr_db float,
    zeroed_fraction float not null,
    levels_used integer,
    channel_sqnr_min_db float,
    channel_sqnr_p10_db float,
    channel_sqnr_median_db float,
    channels_below_10db integer not null,
    input_channel_sqnr_p10_db float,
    input_channels_below_10db integer
);

comment on table stored_errors is 'One row per layer and scheme: what the view errors shows.';
comment on column stored_errors.mse is 'Mean squared error, in weight units squared.';
comment on column stored_errors.max_abs_error is 'Largest distance a weight moves, in weight units.';
comment on column stored_errors.sqnr_db is '10 log10(sum of squared weights / sum of squared errors), in dB; NULL where the error is exactly 0.';
comment on column stored_errors.zeroed_fraction is 'Share of the non-zero weights that come back as 0, from 0 to 1.';
comment on column stored_errors.levels_used is 'Distinct codes in use; NULL where channels have grids of their own.';
comment on column stored_errors.channel_sqnr_min_db is 'SQNR of the worst channel that is not dead, in dB; NULL where it is infinite.';
comment on column stored_errors.channel_sqnr_p10_db is 'SQNR that nine in ten channels reach, in dB, dead channels left out; NULL where it is infinite. The band rests on it.';
comment on column stored_errors.channel_sqnr_median_db is 'SQNR of the median channel, in dB, dead channels left out; NULL where it is infinite.';
comment on column stored_errors.channels_below_10db is 'Channels whose SQNR is below 10 dB, dead channels left out.';
comment on column stored_errors.input_channel_sqnr_p10_db is 'SQNR of the weights that read an input channel, in dB: what nine in ten input channels reach, dead ones left out; NULL where it is infinite or was not measured. Measured under int8 per tensor and per channel, symmetric, for convolutions and matrix products that are not depthwise.';
comment on column stored_errors.input_channels_below_10db is 'Input channels whose weights have an SQNR below 10 dB, dead ones left out; NULL where it was not measured.';

-- Grain: one row per model, scheme and operator family.
create table layer_totals (
    model_id bigint not null,
    scheme varchar not null,
    op_family varchar not null,
    channel_count bigint not null,
    channels_below_10db bigint not null,
    weight_count bigint not null,
    worst_layer varchar not null,
    worst_depth integer not null,
    worst_zeroed_fraction double not null,
    channel_sqnr_p10_db double[] not null,
    weight_sums bigint[] not null
);

comment on table layer_totals is
'One row per model, scheme of a target and operator family: what errors says of these layers together, so that verdicts need not read every layer. Derived from errors and layers whenever a model is written; an import computes it anew.';
comment on column layer_totals.channel_count is 'Channels of these layers.';
comment on column layer_totals.channels_below_10db is
'Channels of these layers whose SQNR is below 10 dB.';
comment on column layer_totals.weight_count is 'Weights of these layers.';
comment on column layer_totals.worst_layer is
'Layer with the lowest channel_sqnr_p10_db; of equals the one that loses more weights, then the first.';
comment on column layer_totals.worst_depth is 'Position of the worst layer.';
comment on column layer_totals.worst_zeroed_fraction is 'zeroed_fraction of the worst layer.';
comment on column layer_totals.channel_sqnr_p10_db is
'channel_sqnr_p10_db of each layer, in dB, lowest first; infinite where errors has NULL. Bands are counted from it, so that they can be changed.';
comment on column layer_totals.weight_sums is
'Weights of each layer and of those before it in channel_sqnr_p10_db.';

-- Grain: one row per layer.
create table histograms (
    layer_id bigint not null,
    low double not null,
    high double not null,
    counts bigint[] not null
);

comment on table histograms is 'One row per layer: its weights in 2,048 equal-width bins, so that the bulk under an outlier still has a shape.';
comment on column histograms.low is 'Left edge of the first bin, the smallest weight.';
comment on column histograms.high is 'Right edge of the last bin, the largest weight.';
comment on column histograms.counts is 'Weights in each bin; a constant tensor has a single one.';

-- Grain: one row per layer, bit width and measure.
create table stored_clipping (
    layer_id bigint not null,
    bits integer not null,
    measure varchar not null,
    lowest_threshold double not null,
    best_point integer not null,
    sqnr_db float[] not null
);

comment on table stored_clipping is
'One row per layer, bit width and measure: what the view clipping shows.';
comment on column stored_clipping.bits is 'Bits per weight of the symmetric grid.';
comment on column stored_clipping.measure is
'What is measured: tensor, channel_p10 or channel_median; the last two for layers that are not fine.';
comment on column stored_clipping.lowest_threshold is
'The first clipping threshold; the others follow in equal ratios, up to 1.';
comment on column stored_clipping.best_point is
'Which threshold has the highest SQNR, counted from 1.';
comment on column stored_clipping.sqnr_db is 'SQNR at each threshold, in dB.';

-- Grain: one row per layer and granularity.
create table bits_needed (
    layer_id bigint not null,
    granularity varchar not null,
    bits integer
);

comment on table bits_needed is
'One row per layer and granularity: how many bits (2 to 16, symmetric) keep it fine.';
comment on column bits_needed.granularity is 'Who shares one scale: tensor, channel or block.';
comment on column bits_needed.bits is
'Bits with which nine in ten channels reach 30 dB, and three in four input channels 10 dB, and with one bit less do not; NULL where 16 are not enough.';

-- Grain: one row per layer and neighbour.
create table equalization (
    layer_id bigint not null,
    partner_layer_id bigint not null,
    scheme varchar not null,
    channel_sqnr_p10_before_db double,
    channel_sqnr_p10_after_db double
);

comment on table equalization is
'One row per layer and neighbour: what cross-layer equalization of this pair alone could give the weights.';
comment on column equalization.partner_layer_id is 'The layer right before or behind it.';
comment on column equalization.channel_sqnr_p10_before_db is
'SQNR that nine in ten channels reach as the weights are, in dB; NULL where it is infinite.';
comment on column equalization.channel_sqnr_p10_after_db is
'SQNR in dB that nine in ten channels would reach after equalization with this partner alone, from weights only; can be lower than before; NULL where it is infinite.';

-- Grain: one row per layer of a model, place where branches join, input, and for all outputs one.
create table graph_points (
    model_id bigint not null,
    point integer not null,
    role varchar not null,
    name varchar not null,
    op_type varchar,
    layer_id bigint
);

comment on table graph_points is
'One row per place in the graph of a model that values come from or go to: a layer, a join of branches, an input, the output. A model of an earlier release has none until it is ingested again.';
comment on column graph_points.point is
'Number of the place in its model, from 0; what feeds a place has a smaller one.';
comment on column graph_points.role is
'What stands there: input, layer, join (a node without weights that reads what comes from several places, such as Add), or output (everything behind the last layers).';
comment on column graph_points.name is
'Name of the node as in layers, or of the input; that of a join is cut off after 200 characters. Empty for the output.';
comment on column graph_points.op_type is 'ONNX operator, such as Conv; NULL for inputs and the output.';
comment on column graph_points.layer_id is
'The layer that stands there, of several operands of one node the first; NULL elsewhere.';

-- Grain: one row per pair of places that values flow between.
create table graph_edges (
    model_id bigint not null,
    source_point integer not null,
    target_point integer not null,
    operators varchar not null
);

comment on table graph_edges is
'One row per pair of places in the graph of a model that values flow between, with no other place on the way. None where there are more than 60,000.';
comment on column graph_edges.source_point is 'The place (graph_points.point) that the values come from.';
comment on column graph_edges.target_point is 'The place (graph_points.point) that reads them.';
comment on column graph_edges.operators is
'Operators passed on the way, as JSON with how often each: of several paths, that with the most.';

-- Grain: one row per finding.
create table findings (
    model_id bigint not null,
    layer_id bigint,
    kind varchar not null,
    severity varchar not null,
    message varchar not null,
    remedy varchar not null
);

comment on table findings is
'One row per finding: what the graph and the weights give away, or what the probe found besides (decoder, saturates), and what to do about it.';
comment on column findings.layer_id is 'The layer it concerns; NULL where it concerns the whole model.';
comment on column findings.kind is
'What was found, such as not finite, dead channel or old opset; docs/survives.md lists every kind with its meaning.';
comment on column findings.severity is
'problem: values are missing or mean nothing; warning: int8 suffers; note: good to know.';
comment on column findings.message is 'What was found, in full sentences.';
comment on column findings.remedy is 'What to do about it.';

-- Grain: one row per file that somebody tried to ingest, once a store was there.
create table ingests (
    ingest_id bigint not null,
    path varchar not null,
    model varchar,
    outcome varchar not null,
    message varchar not null,
    started_at timestamp not null,
    finished_at timestamp not null,
    seconds double not null,
    peak_bytes bigint,
    quantstore_version varchar not null,
    primary key (ingest_id)
);

comment on table ingests is
'One row per file that somebody tried to ingest: what became of it, failures included. What was cancelled or killed leaves no row.';
comment on column ingests.ingest_id is 'Key of the attempt: 63 bits of the SHA-256 of path, times, outcome and message.';
comment on column ingests.path is 'Path or upload name, as it was given.';
comment on column ingests.model is 'Name of the model at that time; NULL where it failed. Removing the model leaves the row.';
comment on column ingests.outcome is 'stored, replaced, already stored or failed.';
comment on column ingests.message is 'Why it failed, in one sentence; empty where it did not.';
comment on column ingests.started_at is 'When it began, UTC.';
comment on column ingests.finished_at is 'When the outcome was certain, UTC.';
comment on column ingests.seconds is 'From the beginning to the outcome, in seconds.';
comment on column ingests.peak_bytes is
'Largest resident memory so far of the process that measured, or of one that it started, in bytes; NULL where the system does not say.';

-- Grain: one row per run of a model in float and quantized.
create table simulations (
    simulation_id bigint not null,
    model_id bigint not null,
    target varchar,
    scheme varchar not null,
    mode varchar not null,
    calibration varchar,
    input_source varchar not null,
    input_shape varchar,
    compared varchar,
    float_layers varchar[],
    sample_count integer not null,
    calibration_count integer,
    output_sqnr_db double,
    deciding_sqnr_db double,
    tail_sqnr_db double,
    top1_agreement double,
    provisional varchar,
    seconds double not null,
    cpu_seconds double,
    onnxruntime_version varchar not null,
    created_at timestamp not null,
    failure varchar,
    primary key (simulation_id)
);

comment on table simulations is
'One row per run of a model, in float and quantized, on the same inputs. A row with input_source noise comes from the probe.';
comment on column simulations.simulation_id is 'Key of the run: 63 bits of the SHA-256 of model_id, target, inputs, result and time, the same in every store.';
comment on column simulations.target is 'Target that the run was for; NULL where it was for none.';
comment on column simulations.mode is
'What was quantized: weights, activations, or both. Most int8 hardware quantizes both.';
comment on column simulations.calibration is
'How the ranges of activations were found: minmax, percentile, entropy or mse; NULL where activations stay in float.';
comment on column simulations.input_source is
'What both models were fed: noise in a row of the probe, else a description of the inputs, which begins with noise where somebody asked for noise.';
comment on column simulations.input_shape is 'Shapes of the inputs, as chosen where the model leaves them open.';
comment on column simulations.compared is
'Which tensors were compared: the outputs, or those before a final Softmax, a selection or the decoding of boxes.';
comment on column simulations.float_layers is
'Names of layers and nodes that stayed in float although the target rounds their kind; empty where none did; NULL where an earlier release ran it and did not say.';
comment on column simulations.sample_count is 'Inputs that were compared; those for calibration are not counted.';
comment on column simulations.calibration_count is
'Inputs that the ranges of activations were found on; 0 where none were needed; NULL where it is not known.';
comment on column simulations.output_sqnr_db is
'SQNR at the outputs of the network, in dB: 10 log10(sum y^2 / sum (y'' - y)^2), median over outputs and samples; -100 where an output became NaN or infinite; NULL where it has no value.';
comment on column simulations.deciding_sqnr_db is
'SQNR that the verdict rests on, in dB: that of the worst output that decides, or tail_sqnr_db where that is lower; NULL where it has no value.';
comment on column simulations.tail_sqnr_db is
'SQNR of the whole file, in dB: that of the worst output before the decoder, less what the decoder loses; NULL where it was not measured.';
comment on column simulations.provisional is
'Why the value is provisional; NULL where it is not.';
comment on column simulations.top1_agreement is
'Share of the samples where the largest score stays the same, from 0 to 1; NULL where there is no such output.';
comment on column simulations.seconds is 'How long the run took, in seconds; in rows of the probe, what this value took after the one before.';
comment on column simulations.cpu_seconds is
'CPU time of the same, in seconds; NULL where it is not known.';
comment on column simulations.onnxruntime_version is 'The onnxruntime that ran both models.';
comment on column simulations.created_at is 'When it was run (UTC).';
comment on column simulations.failure is 'Why output_sqnr_db has no value; NULL where it has one.';

-- Grain: one row per run and output, or part of an output.
create table simulation_outputs (
    simulation_id bigint not null,
    output varchar not null,
    part varchar,
    point varchar,
    sqnr_db double,
    varying_sqnr_db double,
    decision_f1 double,
    decisions bigint,
    decides boolean not null
);

comment on table simulation_outputs is
'One row per run and output of the network; one per part where an output joins parts of different kinds.';
comment on column simulation_outputs.output is 'Name of the output.';
comment on column simulation_outputs.part is
'Tensor that the output joins with others of another kind; NULL where the output is whole.';
comment on column simulation_outputs.point is
'Where the values were compared: before squashing, selection and decoding by constants.';
comment on column simulation_outputs.sqnr_db is
'SQNR there, in dB, median over the samples; NULL where it is exact.';
comment on column simulation_outputs.varying_sqnr_db is
'SQNR of what varies with the input, in dB: values and errors less their mean over the samples; NULL where nothing varies or it was not measured.';
comment on column simulation_outputs.decision_f1 is
'Share of the decisions that stay, from 0 to 1: F1 of the elements above the threshold behind a Sigmoid, agreement of the largest behind a Softmax; NULL where nothing is decided or the inputs are noise.';
comment on column simulation_outputs.decisions is
'How many decisions of the float network that share is of; NULL where there is none.';
comment on column simulation_outputs.decides is
'Whether the verdict looks at this output.';

-- Grain: one row per run on somebody's inputs and input that was compared.
create table simulation_answers (
    simulation_id bigint not null,
    input_name varchar not null,
    rank integer not null,
    sqnr_db double,
    form varchar not null,
    is_shown boolean not null,
    kept integer,
    kept_by_heads integer,
    lost integer,
    gained integer,
    score_change double,
    float_class integer,
    int8_class integer,
    peak_shift integer,
    float_answer varchar,
    int8_answer varchar,
    picture blob
);

comment on table simulation_answers is
'One row per run and input: what becomes of the answer of the float network once it is rounded. Runs on noise have none.';
comment on column simulation_answers.input_name is
'Name of the file in the folder of the inputs, or number of the sample.';
comment on column simulation_answers.rank is
'Position among the inputs of the run, from 1: the first is the input whose outputs changed most.';
comment on column simulation_answers.sqnr_db is
'SQNR of this input alone, in dB, at the output that keeps least of those that decide; NULL where it is exact.';
comment on column simulation_answers.form is
'boxes: detections; classes: the largest score; scores: a map of scores; energy: the last tensor with rows and columns, root mean square over channels; none: the outputs have none of these forms.';
comment on column simulation_answers.is_shown is
'Whether answers are kept to look at: of the inputs that changed most, and of a typical one.';
comment on column simulation_answers.kept is
'How many detections of the float network, elements of its score maps above the threshold, or largest scores stay; NULL where the form has none.';
comment on column simulation_answers.kept_by_heads is
'How many of its detections stay where the decoder computes in float; NULL without a decoder that a target rounds.';
comment on column simulation_answers.lost is 'How many of them the int8 network does not have; NULL as kept.';
comment on column simulation_answers.gained is 'How many the int8 network has that the float one has not; NULL as kept.';
comment on column simulation_answers.score_change is
'Score in int8 less score in float of the detections that stay, on average; NULL where none stays.';
comment on column simulation_answers.float_class is
'Index of the largest score in float; NULL where the form is not classes.';
comment on column simulation_answers.int8_class is
'Index of the largest score in int8; NULL where the form is not classes.';
comment on column simulation_answers.peak_shift is
'How many cells the largest value of the map moves, along rows or columns; NULL without a map, or where the float network has no score above the threshold.';
comment on column simulation_answers.float_answer is
'Answer in float, as JSON: boxes as left, top, right, bottom (shares of the input), class, score, whether it stays; classes with scores; or a map, 255 standing for full_scale. NULL where it is not shown.';
comment on column simulation_answers.int8_answer is 'Answer in int8, as JSON like float_answer.';
comment on column simulation_answers.picture is
'The input as a JPEG file of at most 200 pixels a side; NULL where none was kept.';

-- Grain: one row per run, tensor and kind of error.
create table activation_errors (
    simulation_id bigint not null,
    depth integer not null,
    node_name varchar not null,
    op_type varchar not null,
    tensor varchar not null,
    kind varchar not null,
    sqnr_db double,
    channel_sqnr_p10_db double,
    channels_below_10db integer,
    channel_count integer,
    cosine double,
    mean_shift double,
    std_ratio double,
    float_min double,
    float_max double,
    quantized_min double,
    quantized_max double,
    low double,
    high double,
    float_counts bigint[],
    quantized_counts bigint[]
);

comment on table activation_errors is
'One row per run, tensor and kind of error: how far the quantized model has drifted from the float one there.';
comment on column activation_errors.depth is 'Position of the tensor among those compared, in graph order, from 0.';
comment on column activation_errors.node_name is 'Node that computes the tensor.';
comment on column activation_errors.tensor is 'Name of the tensor.';
comment on column activation_errors.kind is
'accumulated: everything that the run quantizes is quantized; local: the node alone, with float inputs.';
comment on column activation_errors.sqnr_db is
'SQNR of the tensor over all samples, in dB; NULL where it is exact.';
comment on column activation_errors.channel_sqnr_p10_db is
'SQNR that nine in ten channels of the tensor reach, in dB; NULL where it is infinite or was not measured.';
comment on column activation_errors.channels_below_10db is
'Channels of the tensor whose SQNR is below 10 dB; NULL where it was not measured.';
comment on column activation_errors.channel_count is
'Channels of the tensor that are not all zero; NULL where they were not measured.';
comment on column activation_errors.cosine is 'Cosine similarity of the float and the quantized tensor.';
comment on column activation_errors.mean_shift is
'Mean of the quantized tensor minus mean of the float one, in standard deviations of the float one.';
comment on column activation_errors.std_ratio is
'Standard deviation of the quantized tensor over that of the float one.';
comment on column activation_errors.float_min is 'Smallest value in the float model.';
comment on column activation_errors.float_max is 'Largest value in the float model.';
comment on column activation_errors.quantized_min is 'Smallest value in the quantized model.';
comment on column activation_errors.quantized_max is 'Largest value in the quantized model.';
comment on column activation_errors.low is 'Left edge of both histograms.';
comment on column activation_errors.high is 'Right edge of both histograms.';
comment on column activation_errors.float_counts is 'Values of the float tensor in equal bins from low to high.';
comment on column activation_errors.quantized_counts is 'Values of the quantized tensor in the same bins.';

-- Grain: one row per unit, scheme, mode, target, kind and inputs.
create table sensitivities (
    model_id bigint not null,
    layer_id bigint,
    target varchar,
    scheme varchar not null,
    mode varchar not null,
    unit varchar not null,
    unit_kind varchar not null,
    node_name varchar,
    kind varchar not null,
    input_source varchar not null,
    sample_count integer not null,
    output_sqnr_db double,
    created_at timestamp not null
);

comment on table sensitivities is
'One row per unit, scheme, mode, target, kind and inputs: what quantizing one unit at a time does to the outputs.';
comment on column sensitivities.layer_id is 'The layer that the unit belongs to; NULL where it belongs to none.';
comment on column sensitivities.unit is
'What is quantized at a time: the name of a layer, or of a tensor.';
comment on column sensitivities.unit_kind is
'weights: the weights of one layer, with its bias; tensor: one activation or constant; layer: a layer with its inputs and outputs, in rows of release 0.1.0.';
comment on column sensitivities.node_name is
'Node that computes the tensor; NULL where the unit is no tensor.';
comment on column sensitivities.kind is
'alone: only this unit is quantized; all but: every unit but this one.';

-- Grain: one row per run, goal and unit.
create table float_sets (
    simulation_id bigint not null,
    goal_db double not null,
    position integer not null,
    unit varchar not null,
    unit_kind varchar not null,
    output_sqnr_db double
);

comment on table float_sets is
'One row per run, goal and unit: the smallest set that was found of units whose return to float lifts the outputs to the goal.';
comment on column float_sets.goal_db is 'SQNR that the outputs shall reach, in dB.';
comment on column float_sets.position is 'Place of the unit in the order in which the set was found, from 0.';
comment on column float_sets.unit is 'What returns to float: the weights of a layer, by its name, or a tensor.';
comment on column float_sets.unit_kind is
'weights: the weights of one layer, with its bias; tensor: one activation or constant.';
comment on column float_sets.output_sqnr_db is
'SQNR at the outputs with this unit and those before it in float, in dB, measured by a run; NULL where it has no value.';

-- Grain: one row per rescue of a model.
create table rescues (
    rescue_id bigint not null,
    model_id bigint not null,
    target varchar not null,
    reach_db double not null,
    keep_macs double not null,
    allowed varchar[] not null,
    input_source varchar not null,
    calibration_count integer not null,
    validation_count integer not null,
    test_count integer not null,
    float_check_db double,
    before_db double,
    after_db double,
    file_db double,
    integer_db double,
    float_file_db double,
    agreement_before double,
    agreement_after double,
    int8_macs double,
    added_nodes integer not null,
    weights_unsigned boolean not null,
    is_proposal boolean not null,
    reached boolean not null,
    seconds double not null,
    cpu_seconds double,
    onnxruntime_version varchar not null,
    created_at timestamp not null,
    failure varchar,
    notes varchar[] not null,
    primary key (rescue_id)
);

comment on table rescues is
'One row per rescue: remedies were searched that keep a model under a target, files were written and run.';
comment on column rescues.rescue_id is 'Key of the rescue: 63 bits of the SHA-256 of model_id, target, inputs and time, the same in every store.';
comment on column rescues.target is 'Target that the model was rescued for.';
comment on column rescues.reach_db is 'SQNR at the worst output that was asked for, in dB.';
comment on column rescues.keep_macs is
'Share of the multiply-accumulates that had to stay in int8, from 0 to 1.';
comment on column rescues.allowed is 'Remedies that were allowed, in the words of --allow.';
comment on column rescues.input_source is 'What the model was fed: a description of the inputs, or noise.';
comment on column rescues.calibration_count is 'Inputs that ranges, factors and codes were found on.';
comment on column rescues.validation_count is 'Inputs that steps were chosen by.';
comment on column rescues.test_count is 'Inputs that decided nothing; before_db, after_db, file_db and integer_db are of these.';
comment on column rescues.float_check_db is
'SQNR of the emulator with every rounding off against the float model, in dB; NULL where they are equal.';
comment on column rescues.before_db is
'SQNR at the worst output as the target rounds by default, in dB, median over the test inputs.';
comment on column rescues.after_db is 'SQNR at the worst output under the plan, in dB; NULL where nothing is lost.';
comment on column rescues.file_db is
'SQNR at the worst output of the written file, run in float arithmetic, in dB; NULL where nothing is lost.';
comment on column rescues.integer_db is
'SQNR at the worst output of the written file, run with the integer kernels of the computer that wrote it, in dB; NULL where nothing is lost.';
comment on column rescues.float_file_db is
'SQNR of the rescaled float model against the original, in dB; NULL where they are equal.';
comment on column rescues.agreement_before is
'Share of the decisions that stay as the target rounds by default, from 0 to 1: of the largest scores, or F1 of the scores beyond the threshold; NULL where nothing is decided.';
comment on column rescues.agreement_after is 'The same under the plan.';
comment on column rescues.int8_macs is 'Share of the multiply-accumulates in int8 under the plan, from 0 to 1.';
comment on column rescues.added_nodes is 'Nodes that the file has more than the model: a Mul each, beside the roundings.';
comment on column rescues.weights_unsigned is
'Whether the file stores its weights as uint8, for sums of signed ones saturate on the computer that wrote it.';
comment on column rescues.is_proposal is
'Whether it was made on noise: then no quantized file was written, and the values say nothing of real inputs.';
comment on column rescues.reached is 'Whether after_db is at reach_db.';
comment on column rescues.seconds is 'How long it took, in seconds.';
comment on column rescues.cpu_seconds is 'CPU time of the same, in seconds; NULL where it is not known.';
comment on column rescues.onnxruntime_version is 'The onnxruntime that ran the model and its files.';
comment on column rescues.created_at is 'When it was done (UTC).';
comment on column rescues.failure is 'Why it has no plan; NULL where it has one.';
comment on column rescues.notes is 'What there is to know of it, in sentences.';

-- Grain: one row per rescue and step.
create table rescue_steps (
    rescue_id bigint not null,
    step integer not null,
    remedy varchar not null,
    detail varchar not null,
    predicted_db double,
    validation_db double,
    test_db double,
    int8_macs double,
    unit_count integer not null,
    kept boolean not null,
    seconds double
);

comment on table rescue_steps is
'One row per rescue and step: the target by default first, then every remedy that was tried, kept or not.';
comment on column rescue_steps.step is 'Place of the step, from 0.';
comment on column rescue_steps.remedy is
'placement for the target by default, else what was tried, in the words of --allow.';
comment on column rescue_steps.detail is 'What exactly, and why it was dropped where it was.';
comment on column rescue_steps.predicted_db is
'SQNR that the sum of the noise of all units in int8 predicted, in dB; NULL where nothing was predicted.';
comment on column rescue_steps.validation_db is
'SQNR at the worst output on the inputs that steps are chosen by, in dB.';
comment on column rescue_steps.test_db is
'The same on the test inputs, which decide nothing, in dB.';
comment on column rescue_steps.int8_macs is 'Share of the multiply-accumulates in int8 with the step, from 0 to 1.';
comment on column rescue_steps.unit_count is 'Tensors and weights out of int8 with the step.';
comment on column rescue_steps.kept is 'Whether the plan has it.';
comment on column rescue_steps.seconds is 'CPU time of the step, in seconds.';

-- Grain: one row per rescue and unit.
create table rescue_units (
    rescue_id bigint not null,
    unit varchar not null,
    kind varchar not null,
    node_name varchar,
    layer_id bigint,
    noise_to_signal double,
    sensitivity_db double,
    macs bigint,
    rank integer,
    precision varchar not null,
    range_low double,
    range_high double,
    cause varchar
);

comment on table rescue_units is
'One row per rescue and unit: a tensor, or the weights of a layer, that the target rounds.';
comment on column rescue_units.unit is 'Name of the tensor, or of the layer whose weights they are.';
comment on column rescue_units.kind is 'tensor or weights.';
comment on column rescue_units.node_name is 'Node that computes the tensor, or reads the weights; NULL for an input.';
comment on column rescue_units.layer_id is
'The layer of the weights, or the first that reads the tensor; NULL where there is none.';
comment on column rescue_units.noise_to_signal is
'Noise over signal at the worst output with this unit alone in int8; NULL where it was not measured.';
comment on column rescue_units.sensitivity_db is 'The same in dB: higher is better.';
comment on column rescue_units.macs is 'Multiply-accumulates that leave int8 with the unit.';
comment on column rescue_units.rank is 'Place among the promoted units, from 0; NULL where it stays in int8.';
comment on column rescue_units.precision is 'int8, int16 or float: what the plan gives it.';
comment on column rescue_units.range_low is 'Lowest value of the grid of the tensor in the file; NULL for weights.';
comment on column rescue_units.range_high is 'Highest value of the grid of the tensor in the file; NULL for weights.';
comment on column rescue_units.cause is 'Why a promoted unit loses so much; NULL where it stays in int8.';

-- Grain: one row per rescue and file.
create table rescue_files (
    rescue_id bigint not null,
    path varchar not null,
    kind varchar not null,
    sha256 varchar not null,
    bytes bigint not null
);

comment on table rescue_files is 'One row per rescue and file that it wrote.';
comment on column rescue_files.path is 'Where it was written.';
comment on column rescue_files.kind is
'rescued, ongrid, quantize, overrides, exclude, qtable or encodings; with data behind it the external data of that file.';
comment on column rescue_files.sha256 is 'SHA-256 of the file, in hexadecimal.';
comment on column rescue_files.bytes is 'Size of the file, in bytes.';

-- Grain: one row per rescue and layer.
create table rescue_drift (
    rescue_id bigint not null,
    depth integer not null,
    node_name varchar not null,
    op_type varchar not null,
    tensor varchar not null,
    before_db double,
    after_db double
);

comment on table rescue_drift is
'One row per rescue and node that multiplies: how far what it hands on is from float, with everything before it rounded.';
comment on column rescue_drift.depth is 'Place of the node in the order of the network, from 0.';
comment on column rescue_drift.tensor is 'The tensor that it hands on.';
comment on column rescue_drift.before_db is
'SQNR of the tensor as the target rounds by default, in dB, over the test inputs; NULL where nothing is lost.';
comment on column rescue_drift.after_db is
'SQNR of the tensor under the plan, in dB, over the test inputs; NULL where nothing is lost.';

-- Grain: one row per audit of an int8 file.
create table audits (
    audit_id bigint not null,
    int8_model_id bigint not null,
    float_model_id bigint,
    float_file varchar not null,
    input_source varchar not null,
    input_shape varchar not null,
    compared varchar not null,
    sample_count integer not null,
    float_layers integer not null,
    int8_layers integer not null,
    paired_layers integer not null,
    rounded_tensors integer not null,
    paired_tensors integer not null,
    grid_db double,
    integer_db double,
    exact_db double,
    weights_db double,
    activations_db double,
    neither_db double,
    saturates boolean not null,
    seconds double not null,
    cpu_seconds double,
    onnxruntime_version varchar not null,
    created_at timestamp not null,
    failure varchar,
    notes varchar[] not null,
    primary key (audit_id)
);

comment on table audits is
'One row per audit: what an int8 file keeps of the float file that it was made from, in six ways.';
comment on column audits.audit_id is 'Key of the audit: 63 bits of the SHA-256 of int8_model_id, float_file, inputs and time, the same in every store.';
comment on column audits.int8_model_id is 'The model of the int8 file.';
comment on column audits.float_model_id is
'The model of the float file; NULL where this store does not hold it.';
comment on column audits.float_file is 'Name of the float file.';
comment on column audits.input_source is 'What both files were fed: a description of the inputs, or noise.';
comment on column audits.input_shape is 'Shapes of the inputs.';
comment on column audits.compared is 'Where the two files were compared, in words.';
comment on column audits.sample_count is
'Inputs that both files were run on; 0 where neither can be run: then only weights were compared, and every value at the outputs is NULL.';
comment on column audits.float_layers is 'Layers of the float file.';
comment on column audits.int8_layers is 'Layers of the int8 file.';
comment on column audits.paired_layers is 'Layers of the int8 file whose float layer is known.';
comment on column audits.rounded_tensors is 'Activations that the int8 file rounds.';
comment on column audits.paired_tensors is 'Of these, activations whose float tensor is known.';
comment on column audits.grid_db is
'SQNR at the worst output of the int8 file in float arithmetic, in dB; infinite where nothing is lost, NULL where neither file was run (sample_count 0). Audits of quantstore before 0.2 have NULL for both.';
comment on column audits.integer_db is
'The same with the integer kernels of the computer that ran the audit; NULL where they were not run.';
comment on column audits.exact_db is
'The same with integer kernels and sums that cannot saturate; NULL where they were not run.';
comment on column audits.weights_db is 'The same with the int8 weights alone: activations stay in float.';
comment on column audits.activations_db is 'The same with the rounded activations alone: weights stay in float.';
comment on column audits.neither_db is
'The same with neither, which proves that layers and tensors are paired rightly: near exact, infinite if exact.';
comment on column audits.saturates is
'Whether the integer kernels lose more than 1 dB to sums that saturate.';
comment on column audits.seconds is 'How long it took, in seconds.';
comment on column audits.cpu_seconds is 'CPU time of the same, in seconds.';
comment on column audits.onnxruntime_version is
'The onnxruntime that ran both files, or LiteRT and its release where they are TensorFlow Lite; not run where neither was.';
comment on column audits.created_at is 'When it was done (UTC).';
comment on column audits.failure is 'Why it has no values; NULL where it has some.';
comment on column audits.notes is 'What there is to know of it, in sentences.';

-- Grain: one row per audit and layer of the int8 file.
create table audit_layers (
    audit_id bigint not null,
    int8_layer_id bigint,
    float_layer_id bigint,
    matched_by varchar,
    relative_error double,
    stored_scheme varchar,
    stored_sqnr_db double,
    stored_p10_db double,
    plain_p10_db double,
    per_channel_p10_db double,
    scale_ratio double,
    rounding varchar,
    released_gain_db double
);

comment on table audit_layers is
'One row per audit and layer of the int8 file: its weights beside the float weights that they were made from.';
comment on column audit_layers.int8_layer_id is 'The layer of the int8 file; NULL where the store does not hold it.';
comment on column audit_layers.float_layer_id is
'The layer of the float file; NULL where none is its partner, or the store does not hold it.';
comment on column audit_layers.matched_by is
'value: the weights are the same but for rounding; name; order: the same place among layers of one shape; NULL without a partner.';
comment on column audit_layers.relative_error is
'Difference of the weights over the float weights, as a ratio of their norms, over a sample of both.';
comment on column audit_layers.stored_scheme is 'How the int8 file stores the weights; NULL where it stores floats.';
comment on column audit_layers.stored_sqnr_db is 'SQNR of the stored weights against the float weights, in dB; infinite where they are equal.';
comment on column audit_layers.stored_p10_db is 'The same that 90 % of the channels reach.';
comment on column audit_layers.plain_p10_db is
'The same of plain min-max rounding of the same kind; NULL where the kind is not known.';
comment on column audit_layers.per_channel_p10_db is
'The same of plain min-max rounding with a scale per channel; NULL where the kind is not known.';
comment on column audit_layers.scale_ratio is
'Scale of the file over the scale of plain min-max rounding, median over the channels; NULL where it is not known.';
comment on column audit_layers.rounding is
'plain: every code is the nearest one; clipped: but for values beyond the grid; changed: weights were moved (bias correction, compensated rounding, training); NULL where they are floats.';
comment on column audit_layers.released_gain_db is
'What the worst output gains with float weights in this layer alone, in dB; infinite where nothing is lost then, NULL where it was not tried.';

-- Grain: one row per audit and activation that the int8 file rounds.
create table audit_tensors (
    audit_id bigint not null,
    float_tensor varchar,
    int8_tensor varchar not null,
    scale double,
    zero_point integer not null,
    grid_low double,
    grid_high double,
    seen_low double,
    seen_high double,
    saturated_share double,
    used_share double,
    sqnr_db double,
    best_sqnr_db double,
    drift_db double,
    released_gain_db double
);

comment on table audit_tensors is
'One row per audit and activation that the int8 file rounds: its grid beside what it rounds.';
comment on column audit_tensors.float_tensor is 'Name of the tensor in the float file; NULL where it has no partner.';
comment on column audit_tensors.int8_tensor is 'Name of the rounded tensor in the int8 file.';
comment on column audit_tensors.scale is 'Scale of the grid; NULL where it is found at run time.';
comment on column audit_tensors.zero_point is 'Zero point of the grid.';
comment on column audit_tensors.grid_low is 'Least value on the grid; NULL where it is found at run time.';
comment on column audit_tensors.grid_high is 'Largest value on the grid; NULL where it is found at run time.';
comment on column audit_tensors.seen_low is 'Least value of the float tensor on these inputs.';
comment on column audit_tensors.seen_high is 'Largest value of the float tensor on these inputs.';
comment on column audit_tensors.saturated_share is 'Share of the values beyond the ends of the grid, from 0 to 1.';
comment on column audit_tensors.used_share is 'Share of the grid that the values reach, from 0 to 1.';
comment on column audit_tensors.sqnr_db is
'SQNR of rounding the float tensor to this grid, in dB; infinite where nothing is lost, NULL where the grid is found at run time.';
comment on column audit_tensors.best_sqnr_db is
'The same with as many codes over the range of the least squared error.';
comment on column audit_tensors.drift_db is
'SQNR of the tensor in the int8 file, with everything before it, in dB; infinite where it is exact.';
comment on column audit_tensors.released_gain_db is
'What the worst output gains with this tensor alone left in float, in dB; infinite where nothing is lost then, NULL where it was not tried.';

-- Grain: one row per audit, output and part.
create table audit_outputs (
    audit_id bigint not null,
    output varchar not null,
    part varchar,
    point varchar not null,
    decides boolean not null,
    grid_db double,
    integer_db double,
    exact_db double,
    weights_db double,
    activations_db double,
    neither_db double
);

comment on table audit_outputs is
'One row per audit, output and part of it: what it keeps in the six ways of the table audits.';
comment on column audit_outputs.output is 'Name of the output of the float file.';
comment on column audit_outputs.part is 'Part of the output; NULL for all of it.';
comment on column audit_outputs.point is 'Where it is compared, in words.';
comment on column audit_outputs.decides is 'Whether it counts in the values of the audit.';
comment on column audit_outputs.grid_db is 'SQNR in float arithmetic, in dB; infinite where nothing is lost.';
comment on column audit_outputs.integer_db is 'The same with integer kernels; NULL where they were not run.';
comment on column audit_outputs.exact_db is 'The same with exact integer sums; NULL where they were not run.';
comment on column audit_outputs.weights_db is 'The same with the int8 weights alone.';
comment on column audit_outputs.activations_db is 'The same with the rounded activations alone.';
comment on column audit_outputs.neither_db is 'The same with neither.';

-- Grain: one row per band.
create table bands (
    band varchar not null,
    lower_db double not null,
    meaning varchar not null,
    primary key (band)
);

comment on table bands is 'The limits that sort layers by channel_sqnr_p10_db and models by the SQNR at their outputs. They are provisional for layers. Change them here, and every page follows.';
comment on column bands.band is 'fine, watch, at risk or broken: the band of channel_sqnr_p10_db for a layer, of the SQNR at the outputs for a model.';
comment on column bands.lower_db is 'Lowest SQNR that belongs to the band, in dB.';
comment on column bands.meaning is 'What the band says about a layer.';

insert into bands values
    ('fine', 30, 'int8 changes the weights no more than it must'),
    ('watch', 20, 'visible, usually harmless alone'),
    ('at risk', 10, 'one channel in ten is distorted; the sum over layers decides'),
    ('broken', '-infinity', 'one channel in ten is mostly noise');

-- Grain: one row per output channel of a layer.
create view channels as
select
    layer_id,
    channel,
    weight_min::double as weight_min,
    whisker_low::double as whisker_low,
    q1::double as q1,
    median::double as median,
    q3::double as q3,
    whisker_high::double as whisker_high,
    weight_max::double as weight_max,
    weight_max::double - weight_min::double as weight_range,
    mean::double as mean,
    std::double as std,
    outlier_count
from stored_channels;

comment on view channels is 'One row per output channel of a layer: its box plot.';

-- Grain: one row per layer, int8 scheme and output channel.
create view channel_errors as
-- schemes.py: the rows of each int8 scheme; schema.py fills it in.

comment on view channel_errors is 'One row per layer, int8 scheme and output channel.';

-- Grain: one row per layer and scheme.
create view errors as
select
    layer_id,
    scheme,
    mse,
    max_abs_error::double as max_abs_error,
    round(sqnr_db::double, 3) as sqnr_db,
    zeroed_fraction::double as zeroed_fraction,
    levels_used,
    round(channel_sqnr_min_db::double, 3) as channel_sqnr_min_db,
    round(channel_sqnr_p10_db::double, 3) as channel_sqnr_p10_db,
    round(channel_sqnr_median_db::double, 3) as channel_sqnr_median_db,
    channels_below_10db,
    round(input_channel_sqnr_p10_db::double, 3) as input_channel_sqnr_p10_db,
    input_channels_below_10db
from stored_errors;

comment on view errors is 'One row per layer and scheme: what the round trip through the scheme costs.';

-- Grain: one row per layer, bit width and measure.
create view clipping as
select
    layer_id,
    bits,
    measure,
    list_transform(
        range(1, len(stored_clipping.sqnr_db) + 1),
        lambda point: pow(
            lowest_threshold,
            (len(stored_clipping.sqnr_db) - point) / (len(stored_clipping.sqnr_db) - 1)
        )
    ) as thresholds,
    list_transform(stored_clipping.sqnr_db, lambda db: round(db::double, 3)) as sqnr_db,
    thresholds[best_point] as best_threshold
from stored_clipping;

comment on view clipping is
'One row per layer, bit width and measure: SQNR against the threshold where a symmetric per-tensor range is clipped.';
comment on column clipping.thresholds is 'Clipping thresholds, as shares of the largest absolute weight.';
comment on column clipping.sqnr_db is 'SQNR at each threshold, in dB.';
comment on column clipping.best_threshold is
'The threshold with the highest SQNR, as a share of the largest absolute weight.';

-- Grain: one row per layer.
create view model_layers as
select
    models.model,
    layers.* exclude (layer_id, model_id),
    log2(nullif(channel_range_ratio, 0)) as channel_spread_bits,
    sqrt(mean * mean + std * std) as rms,
    -- What a grid must cover is the range widened to include 0; a symmetric one covers both sides
    -- of the largest weight.
    (greatest(weight_max, 0) - least(weight_min, 0)) / nullif(rms, 0) as asymmetric_span_over_rms,
    2 * abs_max / nullif(rms, 0) as symmetric_span_over_rms,
    layer_id,
    model_id
from layers
join models using (model_id);

comment on view model_layers is
'One row per layer, with the name of its model. The distribution of weight ranges is one query on it.';
comment on column model_layers.channel_spread_bits is
'log2(channel_range_ratio): bits that a typical channel loses when the tensor shares one scale.';
comment on column model_layers.rms is 'Root mean square weight.';
comment on column model_layers.asymmetric_span_over_rms is
'Range widened to include 0, over rms; an 8-bit asymmetric grid gives about 58.9 - 20 log10 of it, in dB.';
comment on column model_layers.symmetric_span_over_rms is
'2 abs_max / rms; an 8-bit symmetric grid gives about 58.9 - 20 log10 of it, in dB.';

-- Grain: one row per layer and scheme.
create view layer_errors as
select
    models.model,
    layers.layer,
    layers.module_path,
    layers.operand,
    layers.depth,
    errors.scheme,
    bands.band,
    errors.* exclude (layer_id, scheme),
    layers.op_type,
    layers.op_family,
    layers.shape,
    layers.channel_count,
    layers.group_count,
    layers.is_depthwise,
    layers.weight_count,
    -- numerics/measures.py: each measure that stands beside errors; schema.py fills it in.
    layers.already_quantized,
    errors.layer_id,
    layers.model_id
from errors
join layers using (layer_id)
join models using (model_id)
-- An exact layer has no finite SQNR: it counts as infinitely good.
asof join bands on coalesce(errors.channel_sqnr_p10_db, 'infinity') >= bands.lower_db;

comment on view layer_errors is
'One row per layer and scheme: the model, the layer, its statistics, its errors and its band.';

-- Grain: one row per output channel.
create view layer_channels as
select
    models.model,
    layers.layer,
    layers.operand,
    channels.* exclude (layer_id),
    channels.layer_id,
    layers.model_id
from channels
join layers using (layer_id)
join models using (model_id);

comment on view layer_channels is
'One row per output channel, with its model and layer. A box plot per channel is one query on it.';

-- Grain: one row per finding.
create view model_findings as
select
    models.model,
    layers.layer,
    layers.operand,
    findings.kind,
    findings.severity,
    findings.message,
    findings.remedy,
    layers.depth,
    findings.layer_id,
    findings.model_id
from findings
join models using (model_id)
left join layers on layers.layer_id = findings.layer_id;

comment on view model_findings is
'One row per finding, with the names of its model and, where it concerns one, its layer.';

-- Grain: one row per layer and bin.
create view histogram_bins as
select
    models.model,
    layers.layer,
    layers.operand,
    generate_subscripts(counts, 1) - 1 as bin,
    low + (high - low) * bin / len(counts) as bin_low,
    low + (high - low) * (bin + 1) / len(counts) as bin_high,
    unnest(counts) as weights,
    histograms.layer_id,
    layers.model_id
from histograms
join layers using (layer_id)
join models using (model_id);

comment on view histogram_bins is 'One row per layer and bin of its histogram.';
comment on column histogram_bins.bin is 'Index of the bin, from 0.';
comment on column histogram_bins.bin_low is 'Left edge of the bin, in weight units.';
comment on column histogram_bins.bin_high is
'Right edge of the bin, in weight units; only the last bin includes it.';
comment on column histogram_bins.weights is 'Number of weights in the bin.';

-- Grain: one row per model, scheme and mode.
create view probes as
select
    models.model,
    simulations.scheme,
    simulations.mode,
    simulations.target,
    simulations.output_sqnr_db,
    bands.band,
    simulations.failure,
    simulations.created_at,
    simulations.simulation_id,
    simulations.model_id
from simulations
join models using (model_id)
left join targets on targets.target = simulations.target
asof left join bands on simulations.output_sqnr_db >= bands.lower_db
where simulations.input_source = 'noise'
    -- What rounds only some activations, or rounds them otherwise, is no figure of a scheme.
    and (
        simulations.target is null
        or (targets.placement = 'everywhere' and targets.activations = 'uint8 asymmetric')
        or (targets.target is not null and targets.activations is null)
    )
    and (simulations.output_sqnr_db is not null or simulations.failure is not null)
    -- Where nothing was rounded nothing was left unmeasured: records.NOTHING_ROUNDED. Every other
    -- failure, whatever it says, left the figure unknown.
    and coalesce(simulations.failure, '') not in (
        'the stored integers lie on this grid already; what their rounding lost is unknown',
        'the weights lie on this grid already: rounding them changes nothing',
        'this target rounds nothing that the outputs of this model depend on',
        'the quantized model returns what the float one does: its weights lie on this grid already',
        'the quantizers of the file absorb the rounding: the outputs stay as they are',
        'onnxruntime''s quantizer leaves this model as it is'
    )
qualify row_number() over (
    partition by simulations.model_id, simulations.scheme, simulations.mode
    -- Full int8 that was cut off stays so until it is measured; other figures only add to it.
    order by
        simulations.mode <> 'both' and simulations.failure is not null,
        simulations.created_at desc,
        simulations.simulation_id desc
) = 1;

comment on view probes is
'One row per model, scheme and mode: the latest probe of a target that rounds all activations to uint8, or none, or why it has no value. The view verdicts has the other targets as well.';
comment on column probes.band is
'Band of output_sqnr_db; NULL where that is NULL.';

-- Grain: one row per model and target.
create view verdicts as
with scopes as (
    select
        target,
        scheme,
        -- Layers are not measured with scales that are powers of two: under the same scheme with
        -- finer scales a loss can only be smaller. schemes.py: Target.layer_scheme.
        case scheme when 'int8_tensor_power_of_two' then 'int8_tensor_symmetric' else scheme end
            as layer_scheme,
        -- Other layers stay in float. schemes.py: Target.layer_families.
        coalesce(placement = 'inputs of MatMul, Gemm and recurrent layers', false)
            as rounds_linear_only,
        activations is null as leaves_activations
    from targets
),
-- Not asof: it would sort the layers of every model. NaN, which is larger than infinity, bounds
-- the best band.
intervals as (
    select band, lower_db, lead(lower_db, 1, 'nan') over (order by lower_db) as upper_db
    from bands
),
edges as (
    select
        max(lower_db) filter (band = 'broken') as broken_db,
        max(upper_db) filter (band = 'broken') as broken_end_db,
        max(lower_db) filter (band = 'at risk') as at_risk_db,
        max(upper_db) filter (band = 'at risk') as at_risk_end_db,
        max(lower_db) filter (band = 'watch') as watch_db,
        max(upper_db) filter (band = 'watch') as watch_end_db,
        max(lower_db) filter (band = 'fine') as fine_db,
        max(upper_db) filter (band = 'fine') as fine_end_db
    from intervals
),
banded as (
    select
        layer_totals.*,
        channel_sqnr_p10_db as p10_db,
        len(list_filter(p10_db, lambda db: db < broken_db)) as layers_below_broken,
        len(list_filter(p10_db, lambda db: db >= broken_db and db < broken_end_db))
            as layers_broken,
        len(list_filter(p10_db, lambda db: db >= at_risk_db and db < at_risk_end_db))
            as layers_at_risk,
        len(list_filter(p10_db, lambda db: db >= watch_db and db < watch_end_db))
            as layers_watch,
        len(list_filter(p10_db, lambda db: db >= fine_db and db < fine_end_db)) as layers_fine,
        coalesce(weight_sums[layers_below_broken + layers_broken], 0)
            - coalesce(weight_sums[layers_below_broken], 0) as broken_weights
    from edges, layer_totals
    semi join scopes on scopes.layer_scheme = layer_totals.scheme
),
per_scheme as (
    select
        model,
        -- file_formats: without a graph, layers are told by their names, which proves no loss.
        file_format not in ('safetensors', 'GGUF') as has_graph,
        layer_scheme,
        rounds_linear_only,
        coalesce(sum(layers_broken) filter (is_rounded), 0)::bigint as layers_broken,
        coalesce(sum(layers_at_risk) filter (is_rounded), 0)::bigint as layers_at_risk,
        coalesce(sum(layers_watch) filter (is_rounded), 0)::bigint as layers_watch,
        coalesce(sum(layers_fine) filter (is_rounded), 0)::bigint as layers_fine,
        coalesce(sum(channels_below_10db) filter (is_rounded), 0)::bigint as channels_below_10db,
        coalesce(sum(channel_count) filter (is_rounded), 0)::bigint as channel_count,
        -- Ties are common at 0 dB: the layer that loses more weights is the worse one.
        first(
            worst_layer
            order by p10_db[1], worst_zeroed_fraction desc, worst_depth
        ) filter (is_rounded) as worst_layer,
        nullif(min(p10_db[1]) filter (is_rounded), 'infinity') as worst_channel_sqnr_p10_db,
        coalesce(
            sum(broken_weights) filter (is_rounded)
                / sum(of_scopes.weight_count) filter (is_rounded),
            0
        ) as broken_weight_share,
        model_id
    from (
        select
            *, not rounds_linear_only or op_family in ('linear', 'recurrent') as is_rounded
        from banded
        join (select distinct layer_scheme, rounds_linear_only from scopes) as by_scheme
            on by_scheme.layer_scheme = banded.scheme
    ) as of_scopes
    join models using (model_id)
    group by model_id, model, file_format, layer_scheme, rounds_linear_only
),
figures as (
    select
        model_id,
        simulation_id,
        target,
        scheme,
        mode,
        -- Noise that somebody asked for is no input of theirs.
        case
            when input_source = 'noise' or starts_with(input_source, 'noise, ') then 'probe'
            else 'run'
        end as evidence,
        case
            when coalesce(deciding_sqnr_db, output_sqnr_db) is not null
                then coalesce(deciding_sqnr_db, output_sqnr_db)
            -- Where nothing was rounded nothing was lost: records.NOTHING_ROUNDED. Every other
            -- failure, whatever it says, left the value unknown.
            when failure in (
                'the stored integers lie on this grid already; what their rounding lost is unknown',
                'the weights lie on this grid already: rounding them changes nothing',
                'this target rounds nothing that the outputs of this model depend on',
                'the quantized model returns what the float one does: its weights lie on this grid already',
                'the quantizers of the file absorb the rounding: the outputs stay as they are',
                'onnxruntime''s quantizer leaves this model as it is'
            ) then 'infinity'
        end as sqnr_db,
        failure,
        input_source,
        sample_count,
        provisional,
        created_at
    from simulations
    where coalesce(deciding_sqnr_db, output_sqnr_db) is not null or failure is not null
),
-- The best evidence on each target: inputs of one's own, the latest, before the probe. What was
-- cut off stays so until it is measured.
own as (
    from figures
    where target is not null
    qualify row_number() over (
        partition by model_id, target
        order by
            evidence = 'run' desc,
            input_source = 'noise' desc,
            created_at desc,
            simulation_id desc
    ) = 1
),
weights_alone as (
    from figures
    where mode = 'weights' and sqnr_db is not null
    qualify row_number() over (
        partition by model_id, scheme, evidence
        order by input_source = 'noise' desc, created_at desc, simulation_id desc
    ) = 1
),
weights_alone_by_kind as (
    select *, evidence as kind
    from weights_alone
    union all
    select *, 'best' as kind
    from weights_alone
    qualify row_number() over (partition by model_id, scheme order by evidence = 'run' desc) = 1
),
outputs as (
    select
        simulation_id,
        arg_min(
            case
                -- Behind the heads more is lost than a decoder may lose (3 dB), so that the part
                -- that was worst at the heads is not to blame. 9.9 dB: see docs/method.md.
                when tail_sqnr_db < heads_db - 3 then output || ' (decoder)'
                when part is null then output
                else output || ' (' || part || ')'
            end,
            coalesce(least(sqnr_db, varying_sqnr_db), 'infinity')
        ) as worst_output,
        min(decision_f1) as decision_f1
    from (
        select
            simulation_outputs.*,
            tail_sqnr_db,
            min(least(sqnr_db, varying_sqnr_db + 9.9)) over (
                partition by simulation_id
            ) as heads_db
        from simulation_outputs
        join simulations using (simulation_id)
        where decides
    )
    group by simulation_id
),
compared as (
    select
        per_scheme.*,
        scopes.target,
        scopes.scheme,
        own.sqnr_db is not null as is_settled,
        own.failure,
        -- Weights alone can lower a value and prove a loss, never that there is none.
        beside.sqnr_db is not null and (own.sqnr_db is null or beside.sqnr_db < own.sqnr_db)
            as is_by_weights,
        case when is_by_weights then beside.sqnr_db else own.sqnr_db end as sqnr_db,
        case
            when is_by_weights then beside.simulation_id
            when is_settled then own.simulation_id
        end as simulation_id,
        case
            when is_by_weights then beside.evidence
            when is_settled then own.evidence
            else 'weights'
        end as evidence,
        case when is_settled and not is_by_weights then own.mode else 'weights' end as mode
    from per_scheme
    join scopes using (layer_scheme, rounds_linear_only)
    left join own on own.model_id = per_scheme.model_id and own.target = scopes.target
    left join weights_alone_by_kind as beside
        on beside.model_id = per_scheme.model_id
        and beside.scheme = scopes.layer_scheme
        and not scopes.rounds_linear_only
        and beside.kind = case
            when own.sqnr_db is null then 'best'
            when not scopes.leaves_activations then own.evidence
        end
),
-- The latest rescue of each target that wrote a file.
rescued as (
    select model_id, target, file_db
    from rescues
    where failure is null
        and not is_proposal
        -- Without a value it loses nothing, which reaches every goal, or there is no file.
        and (file_db is not null or reached)
    qualify row_number() over (
        partition by model_id, target order by created_at desc, rescue_id desc
    ) = 1
),
judged as (
    select
        compared.*,
        case
            when is_settled then band
            when sqnr_db is not null then case when band in ('broken', 'at risk') then band end
            when layers_broken > 0 and has_graph then 'broken'
            when layers_at_risk > 0 and has_graph then 'at risk'
        end as proven_band
    from compared
    left join intervals on sqnr_db >= lower_db and sqnr_db < upper_db
)
select
    judged.model,
    judged.target,
    judged.scheme,
    coalesce(proven_band, 'untested') as verdict,
    judged.evidence,
    judged.mode,
    case when sqnr_db < 'infinity' then sqnr_db end as output_sqnr_db,
    outputs.worst_output,
    outputs.decision_f1,
    simulations.sample_count,
    simulations.input_source,
    simulations.provisional,
    case when proven_band is null then coalesce(judged.failure, 'not measured') end as reason,
    judged.is_settled as is_measured,
    judged.layers_broken,
    judged.layers_at_risk,
    judged.layers_watch,
    judged.layers_fine,
    judged.channels_below_10db,
    judged.channel_count,
    judged.worst_layer,
    judged.worst_channel_sqnr_p10_db,
    judged.broken_weight_share,
    rescued.file_db as rescued_db,
    judged.model_id
from judged
left join simulations on simulations.simulation_id = judged.simulation_id
left join rescued on rescued.model_id = judged.model_id and rescued.target = judged.target
left join outputs on outputs.simulation_id = judged.simulation_id;

comment on view verdicts is
'One row per model and target, measured or not: does the model survive, what says so, and how many layers are in which band.';
comment on column verdicts.verdict is
'broken, at risk, watch or fine: the band of the SQNR at the outputs. untested where the target has no value of its own and weights alone prove no loss: they can prove that a model is broken, never that it is fine, and nothing at all where the file has no graph.';
comment on column verdicts.evidence is
'What the verdict rests on: run (the model was run on inputs of your own), probe (on noise) or weights (the worst layer; the model was not run).';
comment on column verdicts.mode is
'What is quantized in the evidence: both weights and activations, or weights alone where that value is lower or the only one.';
comment on column verdicts.output_sqnr_db is
'SQNR at the worst output that decides, in dB: the lower one of the target and of its weights alone; NULL where nothing was run or nothing is lost.';
comment on column verdicts.worst_output is
'Output with the lowest SQNR of those that decide, with its part in parentheses, (decoder) where what is behind the heads loses it; NULL where outputs were not kept apart.';
comment on column verdicts.decision_f1 is
'Lowest share of decisions that stay over the outputs that decide, from 0 to 1; NULL where it was not measured.';
comment on column verdicts.sample_count is
'Inputs that the evidence was compared on; NULL where nothing was run.';
comment on column verdicts.reason is
'Why there is no verdict, where it is untested: not measured, or why the value of the target is missing; NULL otherwise.';
comment on column verdicts.is_measured is
'Whether the target itself has a value; where it has none, broken and at risk rest on weights alone.';
comment on column verdicts.layers_broken is 'Layers in the band broken.';
comment on column verdicts.layers_at_risk is 'Layers in the band at risk.';
comment on column verdicts.layers_watch is 'Layers in the band watch.';
comment on column verdicts.layers_fine is 'Layers in the band fine.';
comment on column verdicts.channels_below_10db is
'Channels of all layers whose SQNR is below 10 dB.';
comment on column verdicts.channel_count is 'Channels of all layers.';
comment on column verdicts.worst_layer is
'Layer with the lowest channel_sqnr_p10_db; of equals the one that loses more weights.';
comment on column verdicts.worst_channel_sqnr_p10_db is
'channel_sqnr_p10_db of the worst layer, in dB; NULL where every layer is exact.';
comment on column verdicts.broken_weight_share is
'Share of the weights that sit in broken layers, from 0 to 1.';
comment on column verdicts.rescued_db is
'SQNR at the worst output of the file that the latest rescue for this target wrote, in dB, measured on inputs that decided nothing; NULL where there is none or nothing is lost.';

-- Grain: one row per model.
create view model_summary as
select
    models.model,
    models.layer_count,
    models.weight_count,
    sum(layers.channel_count)::bigint as channel_count,
    max(layers.weight_range) as max_weight_range,
    median(layers.weight_range) as median_weight_range,
    median(layers.range_over_std) as median_range_over_std,
    -- The 90th percentile: one odd layer says little about a network.
    quantile_cont(log2(nullif(layers.channel_range_ratio, 0)), 0.9) as channel_spread_p90_bits,
    sum(layers.outlier_count)::bigint as outlier_count,
    sum(layers.nonfinite_count)::bigint as nonfinite_count,
    count(*) filter (layers.batchnorm_folded) as layers_with_batchnorm_folded,
    count(*) filter (layers.already_quantized) as layers_already_quantized,
    models.folded,
    models.file_bytes,
    models.file_format,
    models.producer,
    models.ir_version,
    models.opset,
    models.source,
    models.sha256,
    models.ingested_at,
    models.ingest_seconds,
    models.quantstore_version,
    models.measures_version,
    models.tags,
    models.note,
    models.model_id
from models
join layers using (model_id)
group by all;

comment on view model_summary is 'One row per model: where it comes from and how its weights spread.';
comment on column model_summary.channel_count is 'Channels of all layers.';
comment on column model_summary.max_weight_range is 'Largest weight_range of a layer.';
comment on column model_summary.median_weight_range is 'Median weight_range of the layers.';
comment on column model_summary.median_range_over_std is 'Median range_over_std of the layers.';
comment on column model_summary.channel_spread_p90_bits is
'90th percentile over the layers of log2(channel_range_ratio), in bits.';
comment on column model_summary.outlier_count is 'Sum of the layers'' outlier_count.';
comment on column model_summary.nonfinite_count is 'NaN and infinite weights of all layers.';
comment on column model_summary.layers_with_batchnorm_folded is
'Layers with a BatchNormalization folded into their weights.';
comment on column model_summary.layers_already_quantized is 'Layers that are already quantized in the file: stored as integers, or as floats on a grid.';
