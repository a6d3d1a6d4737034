"""Generated stories for small children, for pretraining the embedded model, after TinyStories (Eldan and Li 2023, arXiv 2305.07759).

The stories come from a grammar. A plot is a list of sentences in the notation of `templates.py`, filled in with two characters, a
wish, an obstacle and a helper.
"""

# ruff: noqa: E501, SIM905 - word lists and sentences of the grammar read best in one piece

import random
from dataclasses import dataclass

from headway.data.generated.templates import expand


def generate_stories(count: int, seed: int) -> list[str]:
    """`count` different stories; a seed always gives the same stories."""
    rng = random.Random(f"stories {seed}")
    found: dict[str, None] = {}
    while len(found) < count:
        found[_story(rng)] = None
    return list(found)


@dataclass(frozen=True)
class Character:
    """Character of a story: name, kind for the introduction ("a brave girl"), and pronouns."""

    name: str
    kind: str
    he: str
    him: str
    his: str

    @property
    def He(self) -> str:
        return self.he.capitalize()

    @property
    def His(self) -> str:
        return self.his.capitalize()


GIRLS = "Lily Anna Mia Sue Lucy Molly Jane Emma Ella Rose Amy Kate Ruby Sara Daisy Zoe Nina Clara Polly Bella Holly Jill".split()
BOYS = "Tom Tim Max Sam Jack Leo Bob Fred Pete Joe Finn Billy Oscar Toby Luke Adam Peter Mark Danny Noah Charlie Nick".split()
ANIMALS = "bear cat dog fox mouse rabbit duck frog pig bird squirrel turtle pony lamb goat hen kitten puppy hedgehog monkey".split()
PETS = (
    "Pip Coco Bruno Milo Teddy Honey Biscuit Pepper Ginger Rusty Patch Dot Fluffy Muffin Rolo Poppy Bobo Nibbles Spot Bean".split()
)
NATURES = "little small kind brave happy curious shy clever funny gentle cheerful quiet young friendly".split()
ELDERS = ["mom", "dad", "grandma", "grandpa", "big sister", "big brother", "aunt"]
PLACES = [
    "the park", "the garden", "the forest", "the beach", "the farm", "the river", "the pond", "the market", "the playground",
    "the big hill", "the meadow", "the old barn", "the lake", "the village square", "the orchard",
]  # fmt: skip
THINGS = {
    "ball": "balls", "kite": "kites", "toy car": "toy cars", "doll": "dolls", "balloon": "balloons", "book": "books",
    "hat": "hats", "drum": "drums", "toy boat": "toy boats", "shell": "shells", "flower": "flowers", "ribbon": "ribbons",
    "basket": "baskets", "bell": "bells", "cup": "cups", "lamp": "lamps", "teddy bear": "teddy bears", "toy train": "toy trains",
    "spoon": "spoons", "blanket": "blankets", "whistle": "whistles", "scarf": "scarves", "bucket": "buckets", "key": "keys",
}  # fmt: skip
FOODS = {
    "apple": "apples", "cookie": "cookies", "cake": "cakes", "pear": "pears", "carrot": "carrots", "sandwich": "sandwiches",
    "pie": "pies", "banana": "bananas", "nut": "nuts", "plum": "plums", "egg": "eggs", "muffin": "muffins",
    "cherry": "cherries", "bun": "buns", "pancake": "pancakes", "strawberry": "strawberries",
}  # fmt: skip
COLOURS = "red blue green yellow pink purple orange white brown shiny soft new old tiny big".split()
FEARS = ["the dark", "the thunder", "the deep water", "the tall slide", "the big dog next door", "the loud wind", "the old house"]

OPENINGS = [
    "[Once upon a time|Long ago|One day], there [was|lived] {a.kind} named {a.name}. {a.He} [lived near|had a home by] {place}.",
    "{a.name} was {a.kind} who [lived near|loved to play in|had many friends near] {place}.",
    "[Once|Once upon a time], {a.kind} named {a.name} [lived with {a.his} family|lived in a small house] near {place}. "
    "{a.name} [loved to run and jump|liked to sing|liked to look at the clouds|loved to find new things] every day.",
    "There was once {a.kind}. {a.His} name was {a.name}. {a.He} had a [good|dear|best] friend named {b.name}, {b.kind}.",
]
WEATHER = [
    "[One sunny day|One day|One morning|One afternoon], {a.name} went to {place}.",
    "It was a [warm|bright|windy|cool|lovely] [day|morning]. {a.name} [walked|ran|skipped] to {place}.",
    "One [warm|cold|sunny|cloudy] [day|morning], {a.name} [woke up early|got up] and [ate breakfast|put on {a.his} boots]. "
    "Then {a.he} went to {place}.",
]
MEETING = [
    "[There|At {place}], {a.he} [met|saw] {b.name}, {b.kind}.",
    "Soon {b.name} came [along|by]. {b.name} was {b.kind}.",
    "{b.name}, {b.kind}, was there too.",
]
ENDINGS = [
    "[From that day on|After that], {a.name} and {b.name} were [best|good|great] friends.",
    "{a.name} and {b.name} [smiled and hugged|laughed and danced|held hands and went home]. It was a [good|happy|wonderful] day.",
    "That night, {a.name} [slept well|told {a.his} {elder} all about it|went to bed with a smile]. {a.He} felt [happy|proud|safe and warm].",
    "{a.name} learned that it is [good to {virtue}|always better to {virtue}]. And they [all |]lived happily ever after.",
    "And so {a.name} learned to {virtue}. {a.His} {elder} was very proud of {a.him}.",
]

# plots: virtue and sentences
PLOTS: list[tuple[list[str], list[str]]] = [
    (  # something is lost
        ["look carefully", "help a friend", "keep trying", "ask for help"],
        [
            "{a.name} had {a_colour} {thing}. {a.He} [loved it very much|took it everywhere|played with it all day].",
            "But [then|that day] the {thing} was gone! {a.name} looked [under the bed and behind the door|in the grass and behind the "
            "trees|here and there], but {a.he} could not find it. {a.He} [felt very sad|began to cry|was upset].",
            '"[What is wrong|Why are you sad], {a.name}?" asked {b.name}. "I lost my {thing}," said {a.name}.',
            '"[Don\'t worry|Don\'t cry|Be brave]," said {b.name}. "[I will help you find it|We can look for it together|Let\'s look again]."',
            "They looked [for a long time|high and low|all around {place}]. [At last|Then|After a while], {b.name} saw something "
            "{colour} [under a bush|behind a big rock|in the tall grass|up in a tree|beside the path]. It was the {thing}!",
            '"[Thank you|Oh, thank you so much], {b.name}!" said {a.name}. "You are [a true|a good|my best] friend."',
        ],
    ),
    (  # too high to reach
        ["work together", "ask for help", "think before you jump", "keep trying"],
        [
            "{a.name} saw {a_colour} {thing} [high up in a tree|on a very high shelf|on top of a tall wall]. {a.He} wanted [it|to have it] "
            "[very much|so much].",
            "{a.He} jumped and jumped, but [it was too high|{a.he} could not reach it]. {a.He} tried to climb, but {a.he} [slipped and "
            'fell down|was too small|was afraid]. "[Oh no|Ouch|Oh dear]," said {a.name}.',
            '{b.name} [saw this|was watching] and said, "[Can I help you|May I help|Do you need help]?"',
            '"[Yes, please|Oh yes, please]," said {a.name}. "I want [to get that {thing}|that {colour} {thing}], but I cannot reach it."',
            "{b.name} [thought for a moment|had an idea]. {b.name} [found a long stick|brought a box to stand on|let {a.name} stand on {b.his} "
            "back], and together they got the {thing} down.",
            '{a.name} was [so happy|full of joy]. ["We did it!" {a.he} shouted.|"Hooray!" said {b.name}.] They played with the {thing} '
            "[until the sun went down|all afternoon|until it was time to go home].",
        ],
    ),
    (  # sharing food
        ["share", "be kind", "share with others", "think of others"],
        [
            "{a.name} had [a basket of|a bag of|some] {foods}. They [smelled so good|looked sweet and fresh]. {a.name} wanted to eat them all.",
            '{b.name} [was very hungry|had nothing to eat|felt tired and hungry]. "[May I have|Can I have|Could I have] one {food}, please?" '
            "asked {b.name}.",
            '"No!" said {a.name}. "They are [all mine|mine, not yours]." {b.name} [felt sad|looked down] and [walked away|went away].',
            "{a.name} ate one {food}, then another. But [it was no fun to eat alone|{a.he} did not feel happy]. {a.He} [thought of|remembered] "
            "{b.name}'s sad face.",
            'So {a.name} ran after {b.name}. "I am sorry," {a.he} said. "[Let\'s share the {foods}|You can have some of my {foods}]."',
            "{b.name} [smiled a big smile|was very glad]. They sat [under a tree|on the grass|by the water] and ate the {foods} together. "
            "[They tasted even better now.|It was the best lunch of all.]",
        ],
    ),
    (  # being afraid
        ["be brave", "tell others how you feel", "try new things"],
        [
            "{a.name} was afraid of {fear}. Every time {a.he} [thought of it|came near it], {a.he} [wanted to hide|felt cold and small|shook all over].",
            '"[Come with me|Let\'s go on an adventure]," said {b.name}. "I can\'t," said {a.name}. "I am [scared|afraid] of {fear}."',
            '{b.name} did not laugh. "[I was scared once too|Everyone is afraid of something]," {b.he} said. "[Take my hand|Stay close to me] and '
            'we will [go slowly|count to {n}]."',
            "{a.name} took a deep breath. [One step, two steps, three steps.|{a.He} closed {a.his} eyes and counted.] [Nothing bad happened|It was not "
            "so bad]!",
            '"[Look at me|I did it]," said {a.name}. "I am not afraid [any more|now]!" {b.name} [clapped and cheered|smiled at {a.him}].',
        ],
    ),
    (  # somebody is hurt
        ["help others", "be kind", "take care of your friends"],
        [
            "[On the way|By the path|Near a big tree], {a.name} heard a [small|soft|sad] sound. It was {b.name}. {b.He} had hurt {b.his} "
            "[leg|foot] and could not walk.",
            '"[Please help me|Can you help me]," said {b.name}. "It hurts [so much|a lot]."',
            "{a.name} [was in a hurry, but {a.he} stopped|wanted to play, but {a.he} stayed|knew what to do]. {a.He} [brought some water|tied "
            "{a_colour} ribbon around it|washed it with clean water] and gave {b.name} {a_food} to eat.",
            "{a.name} came back [every day|the next day and the day after]. [Little by little|Soon], {b.name} got [better|stronger] and could [run|walk] "
            "again.",
            '"You [were so kind to me|helped me when I was sad]," said {b.name}. "[Here is {a_colour} {thing} for you|I will never forget it]."',
        ],
    ),
    (  # a wish to learn something
        ["keep trying", "never give up", "practice every day", "be patient"],
        [
            "{a.name} wanted to [swim|ride a bike|fly a kite|bake a cake|climb a tree|build a house of blocks|draw a picture], but {a.he} did not know "
            "how. {a.He} tried, but [it did not work|it was too hard]. {a.He} felt [sad|angry|tired].",
            '"I will never [learn it|do it]," said {a.name}. "[Yes, you will|Do not give up]," said {b.name}. "[Try again|Let me show you]."',
            "So {b.name} [showed {a.him} how|helped {a.him}], and {a.name} tried again. [The first time {a.he} failed.|It was still hard.] The second "
            "time it was [a little|much] better.",
            "{a.name} tried again and again for {n} days. [At last|On the last day], {a.he} could do it! {b.name} [jumped for joy|cheered loudly].",
            '"[See|You see]?" said {b.name}. "You can do it when you [try|work hard]." {a.name} [laughed|smiled]. "Thank you for helping me!"',
        ],
    ),
    (  # a lie and the truth
        ["tell the truth", "be honest", "say sorry"],
        [
            "{a.name} was playing inside. {a.He} [ran too fast|threw a ball|jumped around] and broke {a.his} {elder}'s {colour} {breakable}.",
            '{a.name} was [scared|worried]. {a.He} [hid the pieces under the bed|covered the pieces with a blanket]. "Nobody will [know|see]," {a.he} thought.',
            '[Soon|Later], {a.his} {elder} [asked|said], "Where is my {breakable}?" {a.name} looked [at the floor|away]. "[I don\'t know|{b.name} '
            'took it]," {a.he} said.',
            'But {a.name} [could not sleep|did not feel good|felt bad inside]. {a.He} told {b.name} about it. "You should [tell the truth|say sorry]," said {b.name}.',
            'So {a.name} [went back|was brave] and said, "I broke your {breakable}. I am [very |so |]sorry." {a.His} {elder} gave {a.him} a hug and said, '
            '"[Thank you for telling me|I am glad you told the truth]."',
        ],
    ),
    (  # counting
        ["share", "count with care", "work together"],
        [
            '{a.name} and {b.name} [were looking for|wanted to find] {things}. "Let\'s see who can find the most," said {b.name}.',
            "{a.name} found {n} {things} [near the water|in the grass|by the trees]. {b.name} found {m} {things} [behind a rock|on the path].",
            '"How many are there together?" asked {a.name}. They counted. {n} + {m} = {total}. "There are {total} {things}!" said {b.name}.',
            "[Then the wind came and blew {k} of them away. {total} - {k} = {rest}. Now there were only {rest}.|They gave {k} of the {things} to {a.name}'s "
            "{elder}. {total} - {k} = {rest}. They still had {rest}.]",
            '"[That is enough for us|We still have a lot|It is all right]," said {a.name}, and they [put them in {a_colour} basket|took them home].',
        ],
    ),
    (  # rain
        ["make the best of it", "stay calm", "look on the bright side"],
        [
            "{a.name} and {b.name} wanted to [have a picnic|play outside|fly a kite]. They [packed|took] some {foods} and {a_colour} blanket.",
            'But [soon|then] [dark clouds came|the sky turned gray], and it began to rain. "Oh no!" said {b.name}. "[Our day is ruined|Now we will get wet]."',
            '{a.name} looked around. "[Let\'s run to that old barn|Look, there is a little house|Come under this big tree]!" {a.he} said. They ran as fast as they '
            "could.",
            "[Inside it was warm and dry.|There they were dry.] They ate the {foods}, told [stories|jokes], and listened to the rain.",
            '[When the rain stopped|After the rain], there was a [big|bright|beautiful] rainbow in the sky. "[What a lovely day|This was the best day ever]," said {b.name}.',
        ],
    ),
    (  # a quarrel over a toy
        ["take turns", "share", "say sorry", "play together"],
        [
            '{b.name} had {a_colour} {thing}. {a.name} wanted to play with it too. "Give it to me!" said {a.name}. "No, it is mine!" said {b.name}.',
            "They pulled and pulled. [Crack! The {thing} broke.|Then the {thing} fell into the mud.] {b.name} [cried|was very angry], and {a.name} [felt bad|was sorry].",
            '{a.name}\'s {elder} [came and asked|saw them and said], "[What happened here|Why are you fighting]?" They [told the story|both looked down].',
            '"You can [take turns|play together]," said {a.his} {elder}. "[Then you will both be happy|It is more fun that way]."',
            "{a.name} said sorry and helped to [fix|clean] the {thing}. Then {b.name} played for {n} minutes, and {a.name} played for {n} minutes. "
            "[Both were happy.|Nobody was angry any more.]",
        ],
    ),
    (  # a surprise
        ["be kind", "make others happy", "think of others"],
        [
            "It was {b.name}'s birthday, and {b.he} was {age} years old. {a.name} wanted to [make a surprise|give {b.him} something special].",
            '"What can I [give|make]?" thought {a.name}. {a.He} had [only a little money|no money], so {a.he} [made|baked] a [big|small|sweet] cake and put {age} '
            "{foods} on it.",
            'On the way to {b.name}\'s house, {a.name} [fell|slipped] and dropped the cake! {a.He} [wanted to cry|was very sad]. "Now I have [nothing|no present]," {a.he} said.',
            '{b.name} [opened the door and saw|heard] it all. "[You made this for me|It still smells good]!" {b.he} said. "You are the best present."',
            "Together they [baked a new cake|picked up the {foods}|made a new one]. They [sang songs|danced] and [played|laughed] all day.",
        ],
    ),
]
BREAKABLES = ["cup", "vase", "plate", "lamp", "mirror", "bowl", "clock"]


def _character(rng: random.Random, animal: bool) -> Character:
    nature = rng.choice(NATURES)
    if animal:
        kind, name = rng.choice(ANIMALS), rng.choice(PETS)
        he, him, his = rng.choice([("he", "him", "his"), ("she", "her", "her")])
        return Character(name, f"{_a(nature)} {kind}", he, him, his)
    if rng.random() < 0.5:
        return Character(rng.choice(GIRLS), f"{_a(nature)} girl", "she", "her", "her")
    return Character(rng.choice(BOYS), f"{_a(nature)} boy", "he", "him", "his")


def _a(noun: str) -> str:
    return ("an " if noun[0] in "aeiou" else "a ") + noun


def _story(rng: random.Random) -> str:
    a = _character(rng, rng.random() < 0.45)
    b = _character(rng, rng.random() < 0.5)
    while b.name == a.name:
        b = _character(rng, rng.random() < 0.5)
    thing, food = rng.choice(list(THINGS)), rng.choice(list(FOODS))
    n, m = rng.randint(2, 12), rng.randint(2, 12)
    k = rng.randint(1, n + m - 2)
    colour = rng.choice(COLOURS)
    virtues, sentences = rng.choice(PLOTS)
    opening = rng.choice(OPENINGS)
    body = list(sentences)
    start = [rng.choice(WEATHER)]
    if "{b.name}" not in opening:  # else they know each other
        start.append(rng.choice(MEETING))
    paragraphs = [opening, " ".join(start), " ".join(body[:2]), " ".join(body[2:-1]), body[-1] + " " + rng.choice(ENDINGS)]
    if rng.random() < 0.5:  # longer paragraphs
        paragraphs = [paragraphs[0] + " " + paragraphs[1], paragraphs[2] + " " + paragraphs[3], paragraphs[4]]
    return expand("\n\n".join(paragraphs), rng).format(
        a=a,
        b=b,
        place=rng.choice(PLACES),
        elder=rng.choice(ELDERS),
        thing=thing,
        things=THINGS[thing],
        food=food,
        foods=FOODS[food],
        colour=colour,
        a_colour=_a(colour),
        a_food=_a(food),
        fear=rng.choice(FEARS),
        breakable=rng.choice(BREAKABLES),
        virtue=rng.choice(virtues),
        age=rng.randint(3, 9),
        n=n,
        m=m,
        total=n + m,
        k=k,
        rest=n + m - k,
    )
