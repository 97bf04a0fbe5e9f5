"""What errors and warnings mean, by the module that raises them or by their text."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Entry:
    """What is behind a message.

    Attributes
    ----------
    code : short, stable
    about : what the messages are about
    cause, cure : sentences
    modules : whose errors have this code; the longest that fits counts
    pattern : of the text, for what several modules say and for warnings; it counts before modules
    """

    code: str
    about: str
    cause: str
    cure: str
    modules: tuple[str, ...] = ()
    pattern: str = ""


def _of(*names: str) -> tuple[str, ...]:
    return tuple(f"neuroformer.{name}" for name in names)


ERRORS = (
    Entry(
        "library",
        "a library that is not installed",
        "What few people need is an extra, and it is not installed by itself: formats, video, calcium, archives, sweeps, hubs.",
        "Run the `pip install` that the message ends with, in the environment from which `neuroformer` runs (`neuroformer doctor` shows which that is).",
        pattern=r"pip install ",
    ),
    Entry(
        "file",
        "a file that the system refuses",
        "A path is misspelt, is a folder where a file was expected, may not be read or written, or the disk is full.",
        "Check the path, its permissions and the space; paths in a YAML file are relative to that file.",
        pattern=r"^\[Errno",
    ),
    Entry(
        "setting",
        "a setting of the configuration",
        "A key is unknown or misspelt, has a value of another kind or outside its range, or contradicts another one. Nothing is ignored in silence.",
        "The message names the key, what was got, what was expected, and the nearest known key. `configs/reference.yaml` has every setting with its default and meaning; on the command line they are `key.sub=value`.",
        _of("config", "intervals"),
    ),
    Entry(
        "original",
        "files of the original Neuroformer",
        "A YAML file or data folder of the original lacks something, or holds pickles, which run whatever code is in them.",
        "Export pickles to `.npy` with the lines of the message; `neuroformer import` says what each key became.",
        _of("config.original", "recording.formats.original"),
    ),
    Entry(
        "open",
        "a recording that is not found or not recognized",
        "There is nothing at the path, no reader knows what is there, an option belongs to another reader, or `recording.only` and `without` name a series that is not there.",
        "Look at the path; the message lists the formats, options or series that there are. `neuroformer inspect PATH` prints the YAML that opens a recording.",
        _of("recording.open", "recording.wanted"),
    ),
    Entry(
        "recording",
        "a recording that contradicts itself",
        "Arrays of different length, times that go back or are not finite, spikes of units that do not exist, trials that overlap, a variable that the recording does not have.",
        "The message says which array, what was got and what was expected. Mend the file where it is written; a unit of time other than seconds is the usual reason for odd times.",
        _of("recording", "shown"),
    ),
    Entry(
        "nwb",
        "an NWB file, in HDF5 or in Zarr",
        "The file is damaged or cut short, has no units, is older than NWB 2, or takes data from files elsewhere.",
        "Copy or download it again and compare its size; open it with the option that the message names (`recording.options`), or export what lies elsewhere into one file.",
        _of("recording.formats.nwb", "recording.formats.hdf5", "recording.formats.spike_index"),
    ),
    Entry(
        "sorter",
        "a folder of a sorter: Kilosort, phy, SpikeInterface, ALF",
        "A file of the folder is missing, damaged, or of another length than the others; or there are several sortings or segments.",
        "Point at the folder that holds the spikes, give the option that the message names, or export the folder again from its tool.",
        _of("recording.formats.sorted"),
    ),
    Entry(
        "table",
        "spikes in a table or a MATLAB file",
        "No column or array is known to hold the times or units of spikes, or they do not fit each other.",
        "Name them: `recording.options: {spikes: NAME, units: NAME}`. The message lists what the file has; structures are joined by dots.",
        _of("recording.formats.sorted.spike_tables", "recording.formats.matlab"),
    ),
    Entry(
        "arrays",
        "arrays under our names: `.npz` files, `.recording` folders, dictionaries",
        "An array is missing or has another shape than its name says, or a file is damaged: its checksum is another one.",
        "The table of names in the guide on formats says what each array is; write a damaged file again.",
        _of(
            "recording.formats.arrays",
            "recording.formats.array_names",
            "recording.formats.npz",
            "recording.formats.folder",
            "recording.formats.plain_pickle",
            "recording.names",
        ),
    ),
    Entry(
        "calcium",
        "calcium traces and the events within them",
        "A folder of suite2p is incomplete or has no sampling rate, a trace is empty, or a way to find events needs what is not there.",
        "Give `recording.options.rate_hz`, leave the unit out, or choose `recording.options.events`.",
        _of("recording.calcium", "recording.formats.suite2p"),
    ),
    Entry(
        "objects",
        "files and objects of torch_brain and pynapple",
        "The file is no such object, or holds one that has no place in a recording.",
        "Write it again with its own library, or hand over the parts of it that are spikes, behavior and intervals.",
        _of(
            "recording.formats.torch_brain",
            "recording.formats.torch_brain_writer",
            "recording.formats.pynapple",
            "recording.formats.pynapple_files",
        ),
    ),
    Entry(
        "video",
        "frames: videos, image stacks",
        "The video cannot be decoded, its times are of another number than its frames, or images differ in size.",
        "Give times with as many entries as frames, or a rate; `recording.options.frames_size=[HEIGHT, WIDTH]` brings all to one size; `ffmpeg -i IN OUT.mp4` mends many videos.",
        _of("recording.video", "recording.frames"),
    ),
    Entry(
        "source",
        "a file beside the spikes (`recording.sources`)",
        "A column is not there, nothing says when samples were taken, the file shares no time with the spikes, or pulses of the two clocks cannot be matched.",
        "The message lists what the file has. Give `times` or `rate_hz`; for another unit of time give `scale` (0.001 for milliseconds); for pulses, check that both files are of one session and that `theirs` is the signal of the shared line.",
        _of("recording.sources", "recording.clock"),
    ),
    Entry(
        "address",
        "a file at an address",
        "The server does not answer, the link expired, the file is not there, changed while it was read, or the server serves no ranges.",
        "Try again later, ask the archive for a new link, or download the file and give its path.",
        _of("recording.remote"),
    ),
    Entry(
        "stimulus",
        "presentations and drawn stimuli",
        "A table of presentations has no column of that meaning, names an image that the template does not have, or templates differ in size.",
        "Name the columns in `recording.render.columns`, or give `recording.options.frames_size`.",
        _of("recording.stimuli", "generation.stimulus"),
    ),
    Entry(
        "units",
        "the choice of units (`recording.units`)",
        "The condition is no comparison, names a column that is not there, or leaves no unit.",
        "`neuroformer inspect PATH` shows the columns; words stand in quotes, names with spaces in backquotes, and conditions are joined by `and`, `or`, `not`.",
        _of("recording.units"),
    ),
    Entry(
        "built_in",
        "a built-in recording (`synthetic:NAME`)",
        "There is none of that name, or a parameter is unknown or impossible.",
        "The message lists the names and parameters that there are.",
        _of("recording.synthetic"),
    ),
    Entry(
        "data",
        "the recording under this configuration: splits, windows, tokens, inputs and targets",
        "A part of the split is empty or shorter than a window with its past, bins do not fit the grid on which spikes lie, an input or target is missing or of another kind than its values, or there is too little data for what is asked.",
        "The message says which and by how much: shorten `window.past`, choose another `split.block` or `split.pattern`, the `window.dt` that it names, or another `kind`. `neuroformer audit` shows the parts of the split.",
        _of("data", "audit"),
    ),
    Entry(
        "run",
        "a folder that should hold a run",
        "There is no trained run, it has not ended, its files are damaged or of another version, or the recording at hand is not the one that it was trained on.",
        "`neuroformer inspect RUN` says what is there; `train --run RUN --resume` finishes a run; give a moved recording as `recording.path=FILE`, and one of several with `--recording NAME`.",
        _of("bundle", "runs"),
    ),
    Entry(
        "train",
        "training, stopping and resuming",
        "A checkpoint is of other settings, another process trains into the folder, or the loss is no number any more.",
        "Resume with the settings that the run began with, or give another folder; if the loss is not finite, lower `train.lr` and look at the audit for values that are not what they seem.",
        _of("training", "losses", "model"),
    ),
    Entry(
        "simulation",
        "simulations and their scores",
        "The folder holds another simulation, a stimulus lacks what the model sees, an intervention names what is not there, or nothing repeats that a score needs.",
        "Give another `--out`, a stimulus with all that the run reads, or units by their place or id.",
        _of("generation", "simulator", "simulation_scores"),
    ),
    Entry(
        "decoding",
        "decoding, its baselines and readouts",
        "The run has no such target, there are too few labels or classes, or a baseline cannot do what is asked of it.",
        "Name a target of the run, or one that the recording has with `neuroformer finetune`; leave the baseline out with `--baselines`.",
        _of("decoding", "baselines", "estimators"),
    ),
    Entry(
        "maps",
        "maps, receptive fields and most exciting inputs",
        "The model does not see what is asked about (frames, behavior), or the stretch holds no window.",
        "Train with what is to be mapped (`window.frames` above 0), or ask for another stretch.",
        _of("analysis"),
    ),
    Entry(
        "comparison",
        "comparisons with features and networks",
        "An unknown source or metric, features that do not belong to the frames or times of the recording, or too few stimuli.",
        "Store features with `times` or `image` as the guide on comparing says; compare a run's own network on test data.",
        _of("comparison"),
    ),
    Entry(
        "study",
        "studies: folds, few labels, ablations, probes, sweeps",
        "What is to be varied is not part of the run, a column is not there or does not vary, or there is too little data to divide.",
        "The message lists what there is; ask for fewer folds or labels.",
        _of("studies"),
    ),
    Entry(
        "report",
        "the page, and figures of a run",
        "A file that a panel shows has not been made yet.",
        "Run the command that the message names.",
        _of("report"),
    ),
    Entry(
        "memory",
        "memory and the machine",
        "The run cannot fit into what is free here, however a batch is cut.",
        "Do what the message says would fit; `neuroformer doctor --config FILE` measures it beforehand.",
        _of("memory", "doctor"),
    ),
    Entry(
        "hub",
        "runs on a model hub",
        "The repository is not there, nobody is logged in, the licence is missing, or a file is not the one that its digest says.",
        "Log in with the hub's own tool, give `--license`, or pull again; do not use what was tampered with.",
        _of("hub"),
    ),
    Entry(
        "command",
        "the command line",
        "Options contradict each other, or a command asks for what the run or file cannot give.",
        "`neuroformer COMMAND --help` lists its options; settings are `key.sub=value`.",
        _of("cli", "bench"),
    ),
    Entry(
        "internal",
        "what should not happen",
        "A part of the program was called in a way that it does not allow.",
        "Run the command again with `--debug` and report what it prints.",
        _of("ops", "metrics", "files", "kernels"),
    ),
)

WARNINGS = (
    Entry(
        "no_interval",
        "a score without an interval",
        "Held-out values stay alike for so long that they are worth only a few independent ones, and an interval from these would be a guess.",
        "Hold out more of the recording, in more than one stretch (`split.block`, `split.pattern`); until then the score is one number that may be luck.",
        pattern=r"^no 95 % interval",
    ),
    Entry(
        "glm_not_converged",
        "a GLM baseline that did not converge",
        "The fit ended before its optimum, as with units that hardly spike or inputs that follow from each other.",
        "Read the baseline as a lower bound; leave out units with a handful of spikes (`recording.units.where`), and inputs twice given.",
        pattern=r"^the GLM .* stopped",
    ),
    Entry(
        "retired_setting",
        "a setting that does nothing any more",
        "A file of an earlier version has a key that was taken out; the message says what holds in its place.",
        "Delete the key.",
        pattern=r"does nothing any more",
    ),
    Entry(
        "features_not_kept",
        "features of frames that could not be kept on disk",
        "The cache folder is full or cannot be written; everything works, but they are computed again next time.",
        "Free some space, or name another folder in `NEUROFORMER_CACHE`.",
        pattern=r"^frame features are not kept",
    ),
)
