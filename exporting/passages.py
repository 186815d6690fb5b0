"""Short texts of our own, for exports without --data: ten passages, and five questions on each."""

PASSAGES = (
    (
        "The lighthouse at the end of the pier was built by two brothers in the spring of 1871. Its lamp burned oil until "
        "a cable was laid under the harbour. Sailors could see it from eighteen miles away on a clear night. A keeper lived "
        "below the lamp with his family and three goats. Today it is painted white and nobody lives there.",
        (
            "Who built the lighthouse?",
            "When was it built?",
            "What did the lamp burn?",
            "From how far away could sailors see it?",
            "What colour is it today?",
        ),
    ),
    (
        "Bread needs flour, water, salt and time. The dough rises because yeast turns sugar into gas. A baker folds it "
        "every half hour so that it becomes strong and smooth. In a hot oven the crust browns within twenty minutes. It "
        "tastes best when it has cooled for an hour.",
        (
            "What does bread need?",
            "Why does the dough rise?",
            "How often does a baker fold it?",
            "Where does the crust brown?",
            "When does it taste best?",
        ),
    ),
    (
        "The night train to the coast leaves the old station at ten past eleven. It has six sleeping cars and a small "
        "restaurant that closes at midnight. Passengers who travel with a bicycle must book a week before. The journey "
        "takes nine hours and crosses two mountain passes. In winter snow sometimes delays it until noon.",
        (
            "When does the night train leave?",
            "How many sleeping cars does it have?",
            "Who must book a week before?",
            "How long does the journey take?",
            "What sometimes delays it?",
        ),
    ),
    (
        "Bees tell each other where flowers are by dancing on the comb. The angle of the dance shows the direction from the "
        "sun. A longer run means that the flowers are farther away. Scientists first described it in the last century. "
        "The hive follows the best dancers, and weak ones are soon ignored.",
        (
            "How do bees tell each other where flowers are?",
            "What does the angle of the dance show?",
            "What does a longer run mean?",
            "When did scientists first describe it?",
            "Whom does the hive follow?",
        ),
    ),
    (
        "Our football team lost the final by one goal in the last minute. The coach blamed the wet grass and nobody else. "
        "Two thousand people had come to watch, more than ever before. The goalkeeper, who is only seventeen, was praised "
        "by both sides. They will meet the same opponents again in October.",
        (
            "By how much did the team lose the final?",
            "What did the coach blame?",
            "How many people had come to watch?",
            "Who was praised by both sides?",
            "When will they meet the same opponents again?",
        ),
    ),
    (
        "The film was far too long, and its jokes were older than its actors. I liked the music and the first ten minutes. "
        "My sister fell asleep before the robbery. The ending is a pleasant surprise that I will not spoil. See it with "
        "friends, or do not see it at all.",
        (
            "What was too long?",
            "What did the writer like?",
            "Who fell asleep?",
            "What is a pleasant surprise?",
            "With whom should one see it?",
        ),
    ),
    (
        "Glass is made of sand, soda and lime, melted at about 1,500 degrees. Roman workers blew it into bottles with an "
        "iron pipe. Window glass stayed expensive until rolling machines came. Old panes look uneven because they were spun "
        "by hand. Most bottles are melted again and used within a month.",
        (
            "What is glass made of?",
            "At what temperature is it melted?",
            "What did Roman workers use to blow it?",
            "Why do old panes look uneven?",
            "What happens to most bottles?",
        ),
    ),
    (
        "The library opens at nine except on Mondays. Its reading room has a ceiling of blue tiles and eighty green lamps. "
        "A fire destroyed the eastern wing in 1923, but the maps were saved. Readers may borrow five books for four weeks. "
        "The cat that sleeps on the counter belongs to nobody.",
        (
            "When does the library open?",
            "What does the ceiling consist of?",
            "When did a fire destroy the eastern wing?",
            "How many books may readers borrow?",
            "To whom does the cat belong?",
        ),
    ),
    (
        "A small model answers sooner and needs less memory than the large one it was taught by. It reads the same text and "
        "learns which words its teacher expects. Some rare words are lost on the way. Rounding its weights to eight bits "
        "makes the file four times smaller. Whether it is good enough must be measured on your own text.",
        (
            "What needs less memory?",
            "What does the small model learn?",
            "What is lost on the way?",
            "How much smaller does rounding make the file?",
            "On what must it be measured?",
        ),
    ),
    (
        "Rain fell on the valley for three days and the river rose above the lower bridge. Farmers moved their sheep to the "
        "hill before dark. The school stayed closed until Thursday because the road was gone. Engineers brought a steel "
        "bridge in eleven pieces. By Sunday the first buses crossed it slowly.",
        (
            "For how long did rain fall?",
            "Where did farmers move their sheep?",
            "Why did the school stay closed?",
            "In how many pieces was the steel bridge?",
            "When did the first buses cross it?",
        ),
    ),
)
"""(passage of five sentences, its questions)."""


def _sentences(passage: str) -> list[str]:
    return [f"{part.rstrip('.')}." for part in passage.split(". ")]


SENTENCES = tuple(sentence for passage, _ in PASSAGES for sentence in _sentences(passage))
QUESTIONS = tuple(
    (question, " ".join(_sentences(passage)[: row + 1]))
    for passage, questions in PASSAGES
    for row, question in enumerate(questions)
)
"""(question, context): the passage as far as the sentence that answers, so that lengths differ."""

UNICODE = "Le café naïve à Zürich, Ωmega и Москва, 東京 and 🙂 cost 3½ €: “quotes”, dashes — and a\u00a0hard space."
WORD = "Hello"
EVERYTHING = " ".join(passage for passage, _ in PASSAGES)
"""To be cut at a model's longest input."""
