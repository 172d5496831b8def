"""Sound events, scenes and voices: zero-shot tasks."""

from __future__ import annotations

from otic.evaluation.tasks import sets
from otic.evaluation.tasks.task import BenchTask, scores

HUMAN = (
    "breathing", "brushing_teeth", "clapping", "coughing", "crying_baby", "drinking_sipping", "footsteps", "laughing",
    "sneezing", "snoring",
)  # fmt: skip

SOUND = (
    BenchTask(
        name="ESC-50",
        data=sets.ESC50,
        published=scores("accuracy", msclap26=0.939, msclap22=0.826, laion=0.910),
        scored="all clips, mean of 5 folds",
        clips=2000,
        note="An independent run of the 2023 weights gave .8775.",
    ),
    BenchTask(
        name="FSD50K",
        data=sets.FSD50K,
        published=scores("mAP", msclap26=0.485, msclap22=0.302),
        trained_on=("msclap26", "msclap22"),
        commas=True,
        scored="evaluation set",
        clips=10231,
    ),
    BenchTask(
        name="UrbanSound8K",
        data=sets.US8K,
        published=scores("accuracy", msclap26=0.823, msclap22=0.732, laion=0.770),
        scored="all clips, mean of 10 folds",
        clips=8732,
    ),
    BenchTask(
        name="DCASE17 task 4",
        data=sets.DCASE17,
        published=scores("f1", msclap26=0.466, msclap22=0.300),
        scored="test set",
        note="Papers give no threshold; ours guesses one class for each clip.",
    ),
    BenchTask(
        name="AudioSet",
        data=sets.AUDIOSET,
        published=scores("mAP", msclap26=0.102),
        trained_on=("msclap26",),
        scored="evaluation set, as far as it is still there",
    ),
    BenchTask(
        name="VGGSound",
        data=sets.VGGSOUND,
        published=scores("accuracy", laion=0.462),
        scored="test set",
        note="Weights trained with AudioSet; .291 is quoted for those without.",
    ),
    BenchTask(
        name="VocalSound",
        data=sets.VOCALSOUND,
        published=scores("accuracy", msclap26=0.800, msclap22=0.495),
        scored="test set",
    ),
    BenchTask(name="SESA", data=sets.SESA, published=scores("accuracy", msclap26=0.65), scored="test set"),
    BenchTask(
        name="ESC50-Actions",
        data=sets.ESC50,
        published=scores("mAP", msclap26=0.509),
        classes=HUMAN,
        scored="the ten classes of human sounds, all folds",
        clips=400,
        note="The paper does not list the classes; human non-speech sounds (targets 20 to 29) are our reading.",
    ),
    BenchTask(
        name="TUT 2017",
        data=sets.TUT17,
        published=scores("accuracy", msclap26=0.538, msclap22=0.296),
        scored="test set",
    ),
)
