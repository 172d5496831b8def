"""Music and instruments: zero-shot tasks."""

from __future__ import annotations

from otic.evaluation.tasks import sets
from otic.evaluation.tasks.task import BenchTask, scores

MIDI = {str(n): str(n) for n in range(128)}  # whole numbers; 60.0 would be another word

MUSIC = (
    BenchTask(
        name="GTZAN music/speech",
        data=sets.MUSIC_SPEECH,
        published=scores("accuracy", msclap26=0.992, msclap22=1.0),
        every=True,
        scored="all clips",
    ),
    BenchTask(
        name="GTZAN genres",
        data=sets.GTZAN,
        published=scores("accuracy", msclap26=0.584, msclap22=0.252, laion=0.73),
        prompts={"laion": "song"},
        every=True,
        scored="all clips",
        clips=1000,
        note="Another paper (2406.02032) measured .472 for LAION-CLAP.",
    ),
    BenchTask(
        name="NSynth pitch",
        data=sets.NSYNTH,
        published=scores("accuracy", msclap26=0.444),
        trained_on=("msclap26",),
        column="pitch",
        prompts={"": "a musical note of MIDI pitch {}"},
        words=MIDI,
        scored="test set",
        clips=4096,
    ),
    BenchTask(
        name="NSynth velocity",
        data=sets.NSYNTH,
        published=scores("accuracy", msclap26=0.222),
        trained_on=("msclap26",),
        column="velocity",
        prompts={"": "a musical note played at velocity {}"},
        words=MIDI,
        scored="test set",
        clips=4096,
    ),
    BenchTask(
        name="NSynth qualities",
        data=sets.NSYNTH,
        published=scores("mAP", msclap26=0.489),
        trained_on=("msclap26",),
        column="qualities_str",
        prompts={"": "this is a {} sound"},
        scored="test set",
        clips=4096,
    ),
    BenchTask(
        name="NSynth instrument family",
        data=sets.NSYNTH,
        published=scores("accuracy", msclap26=0.479),
        trained_on=("msclap26",),
        column="instrument_family_str",
        scored="test set",
        clips=4096,
        note="Another paper (2406.02032) measured .581 with the same weights.",
    ),
    BenchTask(
        name="Beijing Opera",
        data=sets.BEIJING,
        published=scores("accuracy", msclap26=0.466, msclap22=0.475),
        every=True,
        scored="all clips",
    ),
    BenchTask(
        name="Mridangam stroke",
        data=sets.MRIDANGAM,
        published=scores("accuracy", msclap22=0.345),
        column="stroke",
        every=True,
        scored="all clips",
        clips=6977,
    ),
    BenchTask(
        name="Mridangam tonic",
        data=sets.MRIDANGAM,
        published=scores("accuracy", msclap22=0.197),
        column="tonic",
        every=True,
        scored="all clips",
        clips=6977,
    ),
)
