"""The card of a trained model: a template filled in with what was measured. What was not is called not measured.

`model_card.md` is the template of pre-trained models and `head_card.md` of fine-tuned ones. The metadata above the
text are made, and read back, with `huggingface_hub`.
"""

import json
import math
import re
import shutil
from pathlib import Path
from string import Template

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from recipe import ROOT, SIMULATED
from validation import BASELINES

from spectral_tokenizer.configuration_spectral_tokenizer import LABELS
from spectral_tokenizer.data import SURVEYS
from spectral_tokenizer.objectives_spectral_tokenizer import HIDING


NOT_MEASURED = "not measured"
LEVELS = {
    "given": "The level of what is hidden is given in the tables below, as in training: flux is in units of the median of all pixels. "
    "Across a gap\n  that nobody observed it is not known, and training does not prepare for that.",
    "visible": "The level of what is hidden is not told, neither in training nor in the tables below: flux is in units of the median "
    "of\n  what is visible, as it is beside a gap that nobody observed.",
}
PREDICTIONS = ("model", *BASELINES)
HELD = "spectra held apart"
PACKAGE = "import spectral_tokenizer  # by this the Auto classes know the model\n\n"
CODE = {
    True: "`trust_remote_code=True` runs the code in this repository; it is\nnot needed where the package is installed.",
    False: "This copy holds the weights alone and needs\nthe package; `training/publish.py` adds the code.",
}
EXAMPLE = '''\
"""Embed a spectrum given as arrays: flux, inverse variance (0: unusable) and wavelength (vacuum Angstrom)."""

import numpy as np
from transformers import {auto}, AutoProcessor

{package}wavelength = np.linspace(4000.0, 9000.0, 4000)
flux, ivar = 1 + 0.1 * np.sin(wavelength / 300), np.full(4000, 1e4)
where = dict(pretrained_model_name_or_path="{name}"{where})
processor = AutoProcessor.from_pretrained(**where)
model = {auto}.from_pretrained(**where).eval()
output = model(**processor(flux, ivar, wavelength, return_tensors="pt"))
print(output.{answer})
'''


def example(metrics: dict, name: str, revision: str | None = None, has_code: bool = True) -> str:
    """Ten lines that embed a spectrum with a model, or classify it: in the card, and in the repository as a file."""
    auto, answer = (
        ("AutoModelForSequenceClassification", "logits") if is_head(metrics) else ("AutoModel", "pooler_output.shape")
    )
    pinned = f', revision="{revision}"' if revision else ""
    package, where = ("", f"{pinned}, trust_remote_code=True") if has_code else (PACKAGE, pinned)
    return EXAMPLE.format(auto=auto, name=name, package=package, where=where, answer=answer)


def write_card(
    folder: Path,
    metrics: dict,
    figure: Path | None = None,
    *,
    name: str | None = None,
    revision: str | None = None,
    datasets: list[str] | None = None,
    evaluation: dict | None = None,
    has_code: bool = True,
) -> None:
    """Write README.md, and put the figure beside it.

    Args:
        folder: Of the model.
        metrics: What `metrics.json` of a pre-training or fine-tuning run holds.
        figure: Picture of reconstructions or predictions.
        name: USER/NAME of the repository that the model goes to. None: it stays a folder.
        revision: Tag that the example pins.
        datasets: Repositories on the Hub of the data it was trained on.
        evaluation: What `evaluation.json` holds, of further spectra: their `name`, `num_spectra` and whether they are
            `simulated`, and `held_by` which run's split they were not trained on, if that is known; and, as in `metrics`, `chi2`, or `test`, `test_by_survey` and `test_by_class` of a head.
        has_code: Whether the code lies beside the weights. If not, the example imports this package.

    Raises:
        ValueError: the metadata would not be read back as they are.
    """
    metrics = json.loads(
        json.dumps(metrics)
    )  # as they are in the file: YAML would write numpy's types as Python objects
    if figure is not None and figure.parent != folder:
        shutil.copy(figure, folder / figure.name)
    values = head_values(metrics, evaluation) if is_head(metrics) else pretraining_values(metrics, evaluation)
    results = head_results(metrics) if is_head(metrics) else pretraining_results(metrics, evaluation)
    template = ROOT / "training" / "head_card.md" if is_head(metrics) else ROOT / "model_card.md"
    text = Template(template.read_text()).substitute(
        values,
        title=title(metrics, name),
        example=example(metrics, name or "path/to/this/folder", revision, has_code).rstrip(),
        code=CODE[has_code],
        figure=f"![{'predictions' if is_head(metrics) else 'reconstructions'}]({figure.name})" if figure else "",
        compute=compute_table(metrics.get("compute")),
        surveys=survey_list([*surveys_of(metrics), *(evaluation or {}).get("num_spectra", {})]),
    )
    data = metadata(metrics, results, title(metrics, name), datasets)
    text = re.sub(r"\n{3,}", "\n\n", text)  # where there is no picture, or nothing to warn of
    card = checked(ModelCard(f"---\n{data.to_yaml()}\n---\n\n{text}"))
    card.save(folder / "README.md")


def is_head(metrics: dict) -> bool:
    return "test" in metrics


def title(metrics: dict, name: str | None) -> str:
    if name:
        return name.rpartition("/")[2]
    return (
        f"Spectral tokenizer with a head: {', '.join(labels_of(metrics))}"
        if is_head(metrics)
        else "Spectral tokenizer"
    )


def labels_of(metrics: dict) -> list[str]:
    return metrics["arguments"]["labels"]


def surveys_of(metrics: dict) -> list[str]:
    """Names of the surveys that a run's spectra are of, or are simulated after."""
    if not is_head(metrics):
        return list(dict.fromkeys(survey.removeprefix(SIMULATED) for survey in metrics["num_spectra"]))
    return sorted({*(metrics.get("test_by_survey") or {}), *metrics["arguments"]["data"]})


def metadata(metrics: dict, results: list[EvalResult], name: str, datasets: list[str] | None) -> ModelCardData:
    """What the Hub searches and shows: names of library, task, licence, data and metrics, and the results."""
    tags = ["astronomy", "spectroscopy", "custom_code", *surveys_of(metrics)]
    return ModelCardData(
        library_name="transformers",
        pipeline_tag="other" if is_head(metrics) else "feature-extraction",
        license="apache-2.0",
        tags=[*tags, "simulated-data"] if metrics["simulated"] else tags,
        datasets=list(datasets or []) or None,
        metrics=sorted({result.metric_type for result in results}) or None,
        model_name=name if results else None,
        eval_results=results or None,
    )


def checked(card: ModelCard) -> ModelCard:
    """The card, read back from its own text and found to say the same; the Hub itself checks it once more at a push.

    Raises:
        ValueError: it says something else, or a result is no number.
    """
    found, expected = ModelCard(str(card)).data.to_dict(), card.data.to_dict()
    if found != expected:
        differing = [name for name in expected if found.get(name) != expected[name]]
        raise ValueError(
            f"README.md: metadata {differing} are read back otherwise: found {found}, expected {expected}"
        )
    for result in card.data.eval_results or []:
        if not is_number(result.metric_value):
            raise ValueError(f"README.md: {result.metric_name}: expected a number, found: {result.metric_value!r}")
    return card


def is_number(value) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def rounded(value):
    """Four digits, of a number: more are not known, and none is read."""
    return float(f"{value:.4g}") if is_number(value) else value


def shown(value, form: str = ".4g") -> str:
    return f"{value:{form}}" if is_number(value) else NOT_MEASURED


def table(header: list[str], rows: list[list[str]]) -> str:
    """Markdown, or the words that nothing was measured."""
    if not rows:
        return f"{NOT_MEASURED.capitalize()}."
    return "\n".join("| " + " | ".join(each) + " |" for each in (header, ["---"] * len(header), *rows))


def pretraining_values(metrics: dict, evaluation: dict | None) -> dict[str, str]:
    """Words for the places in `model_card.md`."""
    recipe, probes = metrics["recipe"], metrics.get("probe") or {}
    untrained = probes.get("untrained", {})
    heads = [
        [name.replace("_10_labels", ", 10 labels a class"), shown(value), shown(untrained.get(name))]
        for name, value in (probes.get("trained") or {}).items()
    ]
    counts = metrics["num_spectra"].items()
    return {
        "warning": warning(metrics),
        "data": data_words(metrics, recipe),
        "held": f"simulated {HELD}" if metrics["simulated"] else HELD,
        "spectra": "\n".join(
            f"| {survey} | {shown(each.get('train'), ',d')} | {shown(each.get('held'), ',d')} |"
            for survey, each in counts
        ),
        "steps": shown(recipe.get("num_steps"), ",d"),
        "batch": shown(recipe.get("max_spectra"), ",d"),
        "seed": shown(recipe.get("seed"), "d"),
        "parameters": parameter_words(metrics),
        "earlier": earlier_words(metrics.get("earlier"), bool(recipe.get("freeze_encoder"))),
        "level": LEVELS[metrics.get("level", "given")],  # what all runs had before it was a setting
        "labels": label_words([metrics, *(metrics.get("earlier") or [])]),
        "chi2": chi2_table(metrics.get("chi2")),
        "further": further_words(evaluation),
        "real": evaluation_words(metrics, evaluation),
        "heads": table(["target", "trained", "untrained"], heads),
    }


def head_values(metrics: dict, evaluation: dict | None) -> dict[str, str]:
    """Words for the places in `head_card.md`."""
    arguments, counts = metrics["arguments"], metrics["num_spectra"]
    opened = arguments["num_trainable_layers"]
    encoder = {None: "Of the encoder, all of it trained.", 0: "The encoder was frozen."}.get(
        opened, f"Of the encoder, its last {opened} layers trained."
    )
    data = data_words(metrics, arguments)
    training = f"{encoder} Trained on {data}: {shown(counts.get('train'), ',d')} spectra;"
    if arguments.get("label_head"):
        if not metrics.get("steps"):
            training = f"Nothing was fitted after that. {data.capitalize()}:"
        told = "The head is the label head that the encoder was pre-trained with, told of objects that it saw there."
        training = f"{told} {training}"
    return {
        "labels": ", ".join(arguments["labels"]),
        "classes": f" ({', '.join(arguments['classes'])})" if arguments["classes"] else "",
        "warning": warning(metrics),
        "training": training,
        "held": "simulated spectra" if metrics["simulated"] else "spectra",
        **{part: shown(counts.get(part), ",d") for part in ("calibration", "test")},
        "parameters": parameter_words(metrics),
        "metrics": table(["metric", "value"], [[name, shown(value)] for name, value in metrics["test"].items()]),
        "by_survey": table_by("survey", metrics),
        "by_class": f"### By class\n\n{table_by('class', metrics)}" if "test_by_class" in metrics else "",
        "further": further_words(evaluation),
        "real": head_evaluation_words(metrics, evaluation),
    }


def warning(metrics: dict) -> str:
    if not metrics["simulated"] or any(run.get("simulated") is not True for run in metrics.get("earlier") or []):
        return ""
    trained = "The head was trained" if is_head(metrics) else "Trained"
    if (metrics.get("arguments") or {}).get("label_head") and not metrics.get("steps"):
        trained = "The head was calibrated"
    return f"**{trained} on simulated spectra alone.** Only an evaluation on real ones tells what it is worth there."


def data_words(metrics: dict, settings: dict) -> str:
    """What was trained on, in words; simulated is called simulated."""
    own, published = "the package's own physical simulator", "published templates of galaxies, quasars and stars"
    streamed = {"": own, "physics": f"{own}, never repeated"}.get(
        settings.get("stream", ""), f"from {published}, never repeated"
    )
    files = f"files of {', '.join(settings['data'])}" if settings["data"] else streamed
    words = settings.get("data_description") or files
    if settings.get("templates"):  # of a head
        alone = not (settings["data"] or settings.get("simulate"))
        words = f"from {published}" if alone else f"{words}; and from {published}"
        if settings.get("faint_templates"):
            low, high = settings.get("faint_snr") or (None, None)
            words += f", some of them at S/N {low:g} to {high:g}" if low else ", some of them lost in noise"
        if settings.get("cool_dwarfs"):
            words += ", and of M dwarfs in APOGEE"
    if settings["data"] and settings.get("stream"):
        words += f"; {1.0 - settings['data_share']:.0%} of the steps were of simulated spectra, {streamed}"
    return f"simulated spectra ({words})" if metrics["simulated"] else words


def parameter_words(metrics: dict) -> str:
    counts = metrics.get("num_parameters") or {}
    return ", ".join(f"{part} {count:,d}" for part, count in counts.items()) or NOT_MEASURED


def earlier_words(runs: list[dict] | None, is_frozen: bool = False) -> str:
    """A line for each run that the checkpoint went through before the one told of, in which the encoder stayed as it was where it
    was frozen."""
    lines = []
    for run in runs or []:
        counts, seconds = run.get("num_spectra") or {}, (run.get("compute") or {}).get("seconds")
        spectra = sum(each.get("train") or 0 for each in counts.values())
        streamed = sum(each.get("train") or 0 for name, each in counts.items() if name.startswith(SIMULATED))
        kind = {True: "simulated spectra", False: "spectra"}.get(run.get("simulated"), "spectra, simulated or not")
        kind += f", {streamed:,d} of them simulated" if streamed else ""
        hours = shown(seconds / 3600, ".3g") if is_number(seconds) else NOT_MEASURED
        steps = shown((run.get("recipe") or {}).get("num_steps"), ",d")
        lines.append(f"- {steps} steps on {shown(spectra or None, ',d')} {kind}; hours: {hours}.")
    if not lines:
        return ""
    words = "\n\nIt continued from a checkpoint trained for:\n\n" + "\n".join(lines)
    return words + "\n\nThe encoder has stayed as it was then: these steps trained the decoder alone." * is_frozen


def label_words(runs: list[dict]) -> str:
    """What any of the runs was told beside the spectra: heads that find the same are no surprise then."""
    recipes = [run.get("recipe") or {} for run in runs]
    words = ""
    if any(each.get("noiseless") for each in recipes):
        words += "\n\nThe decoder was asked for the simulator's flux without noise."
    for run, recipe in zip(runs, recipes):
        options = recipe.get("model_options") or {}
        weight = options.get("label_weight")
        if not weight and not run.get("labels"):
            continue
        # Runs did not always record what they asked for; a checkpoint's own targets outlive the defaults they were.
        names = ", ".join(run.get("labels") or ["class", *options.get("label_targets", LABELS)])
        return words + (
            f"\n\nBeside the flux, the latents were asked for {names} of the objects whose labels were known"
            f"{f' (weight {weight:g})' if weight else ''}. What linear heads find below is therefore not learned from "
            "spectra alone."
        )
    return words


def compute_table(compute: dict | None) -> str:
    """Device, hours and operations; energy and carbon only where a run measured them."""
    compute = compute or {}
    is_gpu = compute.get("device_type") == "cuda"
    processes, threads, seconds = (compute.get(name) for name in ("num_processes", "threads", "seconds"))
    is_timed = is_number(seconds) and is_number(processes) and is_number(threads)
    units = processes * (1 if is_gpu else threads) if is_timed else None
    hours = shown(seconds / 3600 * units, ".3g") if is_timed else NOT_MEASURED
    rows = [
        ["device", str(compute.get("device") or NOT_MEASURED)],
        ["processes", shown(processes, "d")],
        ["threads per process", shown(threads, "d")],
        ["hours from first to last step", shown(seconds / 3600, ".3g") if is_number(seconds) else NOT_MEASURED],
        ["GPU-hours" if is_gpu else "core-hours", hours],
        ["floating-point operations of the matrix products", shown(compute.get("flops"), ".3g")],
        ["energy, kWh", shown(compute.get("energy_kwh"), ".3g")],
        ["carbon, kg CO2 equivalent", shown(compute.get("carbon_kg"), ".3g")],
    ]
    return table(["", ""], rows)


def chi2_table(chi2: dict | None) -> str:
    """A line per survey and manner of hiding, a column per prediction, the best one bold."""
    rows = []
    for survey in (chi2 or {}).get("model", {}):
        for style in HIDING:
            values = [chi2_of(chi2, name, survey, style) for name in PREDICTIONS]
            best = min((value for value in values if is_number(value)), default=None)
            rows.append(
                [
                    survey,
                    style,
                    *(f"**{shown(v, '.2f')}**" if v == best and is_number(v) else shown(v, ".2f") for v in values),
                ]
            )
    return table(["survey", "hidden", *PREDICTIONS], rows)


def chi2_of(chi2: dict, name: str, survey: str, style: str) -> float | None:
    return chi2.get(name, {}).get(survey, {}).get(style, {}).get("mean")


def further_words(evaluation: dict | None) -> str:
    return "further simulated spectra" if (evaluation or {}).get("simulated") else "real spectra"


def are_apart(metrics: dict, evaluation: dict) -> bool:
    """Whether it is known that none of the further spectra were trained on. Evaluations from before `held_by` was written
    down are believed: whoever measured kept them apart."""
    if "held_by" not in evaluation:
        return True
    held = evaluation["held_by"] or {}
    is_of_held = bool(held) and set(evaluation["num_spectra"]) <= set(held["surveys"])

    def kept_from(run: dict) -> bool:
        if "arguments" in run:  # a head's: what its encoder was trained on does not stand there
            return False
        if run.get("simulated") is True and not evaluation["simulated"]:
            return True
        recipe = run.get("recipe") or {}
        # Who is held apart follows from names and places: the same split holds the same objects in every run.
        return is_of_held and all(name in recipe and recipe[name] == value for name, value in held["split"].items())

    return all(map(kept_from, [metrics, *(metrics.get("earlier") or [])]))


def kind_of(metrics: dict, evaluation: dict) -> str:
    """What further spectra are, in words."""
    counts = ", ".join(f"{survey} {held_count(count)}" for survey, count in evaluation.get("num_spectra", {}).items())
    kind = "Simulated spectra" if evaluation["simulated"] else "Real spectra"
    if are_apart(metrics, evaluation):
        return f"{kind}, none of them trained on: {evaluation['name']} ({counts})."
    return f"{kind}: {evaluation['name']} ({counts}). Whether some of them were trained on is not known."


def table_by(column: str, metrics: dict) -> str:
    """A head's metrics survey by survey, or class by class."""
    rows = [
        [part, name, shown(value)]
        for part, scores in (metrics.get(f"test_by_{column}") or {}).items()
        for name, value in scores.items()
    ]
    return table([column, "metric", "value"], rows)


def head_evaluation_words(metrics: dict, evaluation: dict | None) -> str:
    """A head's metrics on further spectra, or that there are none."""
    if not evaluation:
        return f"{NOT_MEASURED.capitalize()}."
    by_class = f"\n\n{table_by('class', evaluation)}" if "test_by_class" in evaluation else ""
    return f"{kind_of(metrics, evaluation)}\n\n{table_by('survey', evaluation)}{by_class}"


def evaluation_words(metrics: dict, evaluation: dict | None) -> str:
    """chi2 on further spectra, or that there is none."""
    if not evaluation:
        return f"{NOT_MEASURED.capitalize()}."
    drawn = "What is hidden is drawn anew: spectra that stand in the table above too have other figures here."
    return f"{kind_of(metrics, evaluation)} {drawn}\n\n{chi2_table(evaluation.get('chi2'))}"


def held_count(count) -> str:
    return shown(count.get("held") if isinstance(count, dict) else count, ",d")


def pretraining_results(metrics: dict, evaluation: dict | None) -> list[EvalResult]:
    """Every measured figure of a pre-training run, as the Hub's model index holds it."""
    results = chi2_results(metrics.get("chi2"), HELD, metrics["simulated"])
    if evaluation:
        results += chi2_results(evaluation.get("chi2"), evaluation["name"], evaluation["simulated"])
    kind = "simulated-" if metrics["simulated"] else ""
    for name, value in ((metrics.get("probe") or {}).get("trained") or {}).items():
        if is_number(value):
            results.append(
                EvalResult(
                    task_type="feature-extraction",
                    task_name="linear head on frozen embeddings",
                    dataset_type=f"{kind}spectra",
                    dataset_name=f"{kind.replace('-', ' ')}spectra of {', '.join(surveys_of(metrics))}, {HELD}",
                    metric_type=metric_type(name),
                    metric_name=name,
                    metric_value=rounded(value),
                )
            )
    return results


def chi2_results(chi2: dict | None, spectra: str, simulated: bool) -> list[EvalResult]:
    def named(survey: str) -> tuple[str, str]:
        return SIMULATED if simulated or survey.startswith(SIMULATED) else "", survey.removeprefix(SIMULATED)

    return [
        EvalResult(
            task_type="feature-extraction",
            task_name="prediction of hidden pixels",
            dataset_type="".join(named(survey)).replace(" ", "-"),
            dataset_name=f"{named(survey)[0]}{named(survey)[1].upper()} ({spectra})",
            dataset_config=spectra,  # results of one survey are told apart by this alone
            metric_type="chi2",
            metric_name=f"chi2 per pixel, hidden: {style}",
            metric_value=rounded(chi2_of(chi2, "model", survey, style)),
        )
        for survey in (chi2 or {}).get("model", {})
        for style in HIDING
        if is_number(chi2_of(chi2, "model", survey, style))
    ]


def head_results(metrics: dict) -> list[EvalResult]:
    kind = "simulated-" if metrics["simulated"] else ""
    is_classifier = bool(metrics["arguments"]["classes"])
    return [
        EvalResult(
            task_type="other",
            task_name=f"{'classification' if is_classifier else 'regression'} of spectra",
            dataset_type=f"{kind}{survey}",
            dataset_name=f"{kind.replace('-', ' ')}{survey.upper()} (objects not trained on)",
            metric_type=metric_type(name),
            metric_name=name,
            metric_value=rounded(value),
        )
        for survey, scores in (metrics.get("test_by_survey") or {}).items()
        for name, value in scores.items()
        if is_number(value)
    ]


def metric_type(name: str) -> str:
    """The Hub's name of a metric where it has one."""
    known = ("accuracy", "f1", "precision", "recall")
    return next((each for each in known if each in name.replace("-", "_").split("_")), name)


def survey_list(names: list[str]) -> str:
    """How each survey is cited and acknowledged, as its reader says."""
    lines = []
    for name in dict.fromkeys(names):
        survey = SURVEYS.get(name)
        where = f" ({survey.HOMEPAGE})" if survey and survey.HOMEPAGE else ""
        lines.append(f"- **{name}**{where}" + (f": {survey.CITATION}." if survey else ""))
        if survey and survey.ACKNOWLEDGEMENT:
            lines.append(f"\n  > {survey.ACKNOWLEDGEMENT}\n")
    return "\n".join(lines).rstrip("\n")
