"""What Brook knows about Sluice: topics, each with one short and one full answer and the many ways to ask for it."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Topic:
    """One fact. `check` lists groups of alternatives; an answer is right when it contains one of each group."""

    name: str
    brief: str
    full: str
    check: tuple
    do: tuple = ()  # completes "How do I ..."
    what: tuple = ()  # a noun phrase, completes "What is ..."
    ask: tuple = ()  # whole questions


TOPICS = []


def _topic(name, brief, more, check, do=(), what=(), ask=()):
    """`more` follows the brief answer in the full one; "=text" replaces it."""
    full = more[1:] if more.startswith("=") else (brief + " " + more).strip()
    groups = tuple(tuple(g.lower() for g in c.split("|")) for c in check)
    TOPICS.append(Topic(name, brief, full, groups, tuple(do), tuple(what), tuple(ask)))


DO_FRAMES = (
    "How do I <x>?", "How can I <x>?", "How do you <x>?", "How does one <x>?", "How would I <x>?",
    "How could I <x>?", "How should I <x>?", "What must I do to <x>?", "What do I do to <x>?",
    "What do I need to do to <x>?", "What is the way to <x>?", "What is the best way to <x>?",
    "I want to <x>. How?", "I want to <x>.", "I would like to <x>.", "I need to <x>.", "I'd like to <x>, how?",
    "I need to <x>. What do I do?", "Can you tell me how to <x>?", "Can you show me how to <x>?",
    "Could you explain how to <x>?", "Tell me how to <x>.", "Show me how to <x>.", "Explain how to <x>.",
    "Help me <x>.", "Can you help me <x>?", "Is there a way to <x>?", "Is it possible to <x>?", "Can I <x>?",
    "Please explain how I <x>.", "Do you know how to <x>?", "I don't know how to <x>.", "I am trying to <x>.",
    "How to <x>?", "how to <x>", "What are the steps to <x>?", "What if I want to <x>?", "We want to <x>. How?",
    "My boss wants me to <x>.", "Where can I read how to <x>?", "How exactly do I <x>?", "So how do I <x>?",
)

WHAT_FRAMES = (
    "What is <x>?", "What's <x>?", "What does <x> mean?", "What does <x> do?", "Explain <x>.", "Please explain <x>.",
    "Tell me about <x>.", "Can you explain <x>?", "Could you tell me about <x>?", "Can you tell me what <x> is?",
    "What can you tell me about <x>?", "I don't understand <x>.", "I do not know what <x> is.", "What about <x>?",
    "Describe <x>.", "Do you know what <x> is?", "Help me understand <x>.", "I have a question about <x>.",
    "What should I know about <x>?", "I read about <x>. What is it?", "Someone told me about <x>. What is that?",
    "Give me a short explanation of <x>.", "What is meant by <x>?", "How would you explain <x>?",
    "<x>?", "<x>, what is that?", "And what is <x>?", "So what is <x>?", "I want to know about <x>.",
    "Can you say what <x> means?", "Tell me what <x> means.", "Tell me what <x> is.", "What exactly is <x>?",
)

GOT = "[I got|I get|I received|The server sent|Sluice answered with|Sluice returned|My client shows|curl shows|The answer was|I see|My program gets]"
WHY = "[Why do I get|Why did I get|What is the reason for|What causes|When do I get|Why does Sluice send|When does Sluice send|Why am I getting]"
FIX = "[What does it mean|What now|Why|What should I do|What is wrong|What can I do]"

# What it is and how it runs.
_topic("what_is", "Sluice is a gateway for language models.",
       "It speaks the OpenAI API and runs the models itself, in worker processes on the same machine.",
       ["gateway", "openai"],
       what=["Sluice", "this Sluice thing", "the Sluice project", "this server", "this program", "this software"],
       ask=["What is Sluice [for|good for|used for]?", "What can Sluice do?", "What does Sluice do [for me|here|exactly]?",
            "Why would I use Sluice?", "Who is Sluice for?", "[Introduce|Describe] Sluice [in a few words|to a newcomer|to me].",
            "Give me an overview of Sluice.", "What kind of [program|software|server|thing] is Sluice?",
            "I am new to Sluice. What is it?", "What problem does Sluice solve?", "Is Sluice a [gateway|server|model]?"])
_topic("port", "Sluice listens on port 8080.", "The address is http://127.0.0.1:8080, so only your own machine can reach it.",
       ["8080"],
       what=["the port", "the default port", "the port of Sluice", "the port number", "the address of Sluice", "the default address", "the server address"],
       ask=["[Which|What] port does [Sluice|the server|the gateway|it] [use|listen on|run on|open|take]?", "On [which|what] port does [Sluice|the gateway|the server] [listen|run|answer]?",
            "[Which|What] port is [Sluice|the server|the gateway] on?", "Where does [Sluice|the server|the gateway] listen?",
            "[Which|What] [address|URL] does [Sluice|the server|the gateway] [have|use|listen on]?", "[Which|What] port do I [connect to|use|need|call]?",
            "Where can I reach [Sluice|the server|the gateway]?", "Is [Sluice|the server|it] on port [80|3000|8000|443|9090|8080]?", "port of sluice?"])
_topic("change_port", "Start it with scripts/run --port N.", "N is the port number, for example scripts/run --port 9000.",
       ["--port"],
       do=["change the port", "use another port", "use a different port", "run Sluice on another port", "start Sluice on a different port", "set the port", "pick another port", "listen on another port", "move Sluice to port 9000"],
       ask=["Port 8080 is [taken|in use|busy|used by something else]. What now?", "The port is already in use. What [now|can I do|should I do]?",
            "Which option [sets|changes] the port?", "Something else uses port 8080. [Help|What do I do]?", "Can Sluice run on port [9000|8000|3000|8081]?"])
_topic("start", "Run scripts/run.", "It installs what is missing, builds Sluice and starts it on 127.0.0.1:8080.",
       ["scripts/run"],
       do=["start Sluice", "run Sluice", "install Sluice", "get started", "build and start Sluice", "launch the server", "start the server", "set up Sluice", "get Sluice running", "start the gateway", "install and run Sluice"],
       what=["scripts/run", "the run script"],
       ask=["How does Sluice start?", "Which command starts [Sluice|the server|the gateway]?", "What is the [first step|first thing to do|command to start Sluice]?",
            "Where do I [start|begin] with Sluice?", "I just cloned the repository. What [now|next]?", "I have just downloaded Sluice. What now?", "What do I type to start Sluice?"])
_topic("stop_server", "Press Ctrl-C once.", "Sluice then drains: it finishes the running requests, takes no new ones and stops. A second Ctrl-C stops it at once.",
       ["ctrl-c"],
       do=["stop Sluice", "stop the server", "shut down Sluice", "shut the server down", "end Sluice", "turn Sluice off", "quit Sluice", "stop the gateway", "shut down the gateway cleanly", "exit Sluice"],
       ask=["What happens [on|when I press] Ctrl-C?", "How does Sluice [stop|shut down|end]?", "Which key stops [Sluice|the server]?", "What happens on SIGTERM?"])
_topic("drain", "To drain means to finish the running requests and to take no new ones.", "Sluice drains on Ctrl-C or SIGTERM; a second signal stops it at once.",
       ["finish"],
       what=["drain", "draining", "the drain", "a drain", "the word drain", "graceful shutdown"],
       do=["drain Sluice", "drain the server", "drain the gateway"],
       ask=["What happens [when Sluice drains|while Sluice is draining|during a drain]?", "Why does the log say [drain|draining]?", "What does it mean that Sluice is draining?"])
_topic("run_tests", "Run scripts/test.", "It builds Sluice, runs every test and ends with the summary of ctest.",
       ["scripts/test"],
       do=["run the tests", "test Sluice", "run all tests", "check that my build works", "run the test suite", "start the tests", "check that everything works"],
       what=["scripts/test", "the test script", "the test command"],
       ask=["Which command runs the tests?", "Where are the tests?", "How is Sluice tested?", "Does Sluice have tests?"])
_topic("system", "Sluice runs on Debian 12.", "It needs no GPU, and scripts/run installs what is missing with apt.",
       ["debian"],
       what=["the supported system", "the supported operating system"],
       ask=["[Which|What] [system|operating system|Linux|OS|distribution] does Sluice [need|run on|support|want]?", "Does Sluice run on [Debian|Linux|Debian 12|my server]?",
            "What do I need to run Sluice?", "What are the requirements [of|for] Sluice?", "What hardware does Sluice need?", "[Which|What] machine do I need for Sluice?"])
_topic("gpu", "A GPU is optional.",
       "Sluice runs models on the CPU.",
       ["cpu|optional"],
       do=["use a GPU", "run on a GPU", "run models on my graphics card", "use CUDA"],
       what=["the GPU support", "CUDA support"],
       ask=["Do I need a [GPU|graphics card|video card]?", "Does Sluice [need|require|want] a [GPU|graphics card]?", "Does Sluice [work|run] without a GPU?", "Does Sluice support [GPUs|CUDA|NVIDIA|graphics cards]?",
            "Can Sluice run on [the CPU|a CPU|a laptop]?", "Is a [GPU|graphics card] needed?", "Is CUDA required?"])
_topic("language", "Sluice is written in C++20.", "It uses Boost Asio and Beast for HTTP.",
       ["c++"],
       what=["the language of the code"],
       ask=["[Which|What] language is Sluice written in?", "[Which|What] programming language does Sluice use?", "What is Sluice written in?", "Is Sluice written in [C++|Rust|Go|Python|Java]?", "In which language was Sluice [written|made|programmed]?", "What is Sluice [made|built] with?"])
_topic("licence", "Sluice has the MIT licence.", "You may use, change and share it freely.",
       ["mit"],
       what=["the licence", "the license", "the licence of Sluice", "the license of Sluice"],
       ask=["Is Sluice [free|open source|free software|open]?", "[Which|What] [licence|license] does Sluice have?", "[May|Can] I use Sluice [at work|for free|in my company|commercially]?", "What does Sluice cost?", "How much does Sluice cost?", "Do I have to pay for Sluice?"])
_topic("version", "Run sluice --version.", "It prints the version of Sluice.",
       ["--version"],
       do=["see the version", "find the version", "check which version I have", "print the version of Sluice", "find out the version of Sluice"],
       ask=["[Which|What] version of Sluice [is this|do I have|am I running|is running]?", "What version is this?"])
_topic("console", "Sluice has no web page yet.",
       "Use curl or any OpenAI client with http://127.0.0.1:8080/v1.",
       ["no web page|client"],
       do=["open the console", "open the playground", "try Sluice in a browser", "see the console", "use the web page", "chat in the browser", "find the web interface"],
       what=["the console", "the playground", "the web interface", "the web page of Sluice"],
       ask=["Does Sluice have a [web page|web interface|console|user interface|playground|UI]?", "Where is the [console|playground|web interface|web page]?", "Is there a [web page|web interface|console|user interface|playground]?"])
_topic("processes", "One gateway process speaks HTTP, and worker processes run the models.", "A parent process starts and watches them all.",
       ["gateway", "worker"],
       what=["the architecture of Sluice", "the processes of Sluice", "the structure of Sluice", "the design of Sluice"],
       ask=["[Which|What] processes does Sluice [have|run|start]?", "How is Sluice [built|structured|organised|designed]?", "How does Sluice work [inside|internally]?", "What are the parts of Sluice?"])
_topic("worker", "A worker is a process that runs a model on one device.", "The gateway hands it token ids over shared memory.",
       ["process"],
       what=["a worker", "a Sluice worker", "the worker process", "a worker process", "the worker", "sluice-worker"],
       ask=["What do [workers|the workers] do?", "What is a worker [good for|for]?", "Why are there workers?"])
_topic("gateway", "The gateway is the process that speaks HTTP.", "It checks keys, counts tokens, keeps the quotas and sends the work to the workers.",
       ["http"],
       what=["the gateway", "the gateway process", "the Sluice gateway"],
       ask=["What does the gateway do?", "What is the gateway [for|good for]?", "What is the job of the gateway?"])
_topic("workers_option", "Start it with scripts/run --workers N.", "N is the number of worker processes.",
       ["--workers"],
       do=["run more workers", "start more workers", "set the number of workers", "use two workers", "add workers", "add another worker", "change the number of workers"],
       ask=["How many workers can I run?", "Which option sets the number of workers?", "Can Sluice run [several|many|two|more] workers?"])
_topic("own_model", "Start it with scripts/run --model DIR.", "DIR is a folder with the model files.",
       ["--model"],
       do=["use my own model", "load another model", "serve a different model", "change the model", "load my own model", "use another model", "run a bigger model", "serve my own weights", "point Sluice at a model", "load a model from disk"],
       ask=["Which option sets the model?", "Can Sluice [run|serve|load] [other|my|bigger|different] models?", "Where do I put my model?", "Can I bring my own model?"])
_topic("config", "Pass --config FILE with a YAML file.", "Check it first with sluice check-config.",
       ["--config", "yaml"],
       do=["configure Sluice", "use a configuration file", "pass a configuration file", "change the settings", "write a configuration", "set options in a file", "use a config file"],
       what=["the configuration file", "the configuration format", "the config file"],
       ask=["[Which|What] format does the configuration [use|have]?", "Where is the [configuration|config]?", "Where do I put the [settings|configuration]?", "Does Sluice have a [config|configuration] file?"])
_topic("check_config", "Run sluice check-config.", "It names the line, the key and the allowed range of each mistake.",
       ["check-config"],
       do=["check my configuration", "validate the configuration", "check the config file", "find mistakes in my configuration", "test my configuration file", "verify my settings"],
       what=["sluice check-config", "check-config"],
       ask=["Is my configuration [right|valid|correct]?", "My configuration [is refused|does not load|has a mistake]. What can I do?"])
_topic("reload", "Send SIGHUP to Sluice.", "It reloads keys and limits without a restart.",
       ["sighup"],
       do=["reload the configuration", "reload keys and limits", "apply new settings without a restart", "reload the keys", "change the configuration without stopping", "reload Sluice"],
       what=["SIGHUP", "the reload signal"],
       ask=["Which signal reloads [the configuration|keys|the limits]?", "Do I have to restart after a change of the configuration?", "What happens on SIGHUP?"])
_topic("tls", "Set a certificate and its key in the configuration.", "Sluice then speaks TLS, so clients use https.",
       ["certificate"],
       do=["use HTTPS", "turn on TLS", "enable TLS", "use a certificate", "encrypt the connection", "set up HTTPS", "enable https"],
       what=["the TLS support", "TLS in Sluice"],
       ask=["Does Sluice [support|speak|do|have] [TLS|HTTPS|SSL]?", "Is the connection encrypted?", "Is TLS [possible|supported]?"])
_topic("remote", "Configure keys first, then set the listen address.", "Without keys Sluice refuses every address except loopback.",
       ["keys"],
       do=["reach Sluice from another machine", "open Sluice to the network", "let others use my server", "make Sluice public", "listen on all addresses", "use Sluice from another computer", "expose Sluice to my team", "listen on 0.0.0.0"],
       ask=["Why can't [I|other machines] reach Sluice from [outside|the network|another machine]?", "Why does Sluice refuse [my address|0.0.0.0|a public address]?", "Can other [machines|computers|people] use my Sluice?"])
_topic("bench", "Run sluice bench.", "It is a load client that prints latencies and tokens per second.",
       ["sluice bench"],
       do=["measure the speed", "run a benchmark", "benchmark Sluice", "measure the latency", "load test Sluice", "see how fast Sluice is"],
       what=["sluice bench", "the bench command", "the load client"],
       ask=["How fast is Sluice [on my machine|here]?", "Is there a [benchmark|load test|load client]?"])

# First requests.
_topic("first_request", "Send a POST to http://127.0.0.1:8080/v1/chat/completions.", "The JSON body needs model and messages, for example \"model\": \"brook\".",
       ["/v1/chat/completions"],
       do=["send a request", "make my first request", "call the API", "ask the model something", "send a chat request", "chat with the model", "use curl with Sluice", "call Sluice with curl", "send a message to the model", "talk to the model over HTTP"],
       what=["the chat endpoint", "the chat route", "the URL for chat", "/v1/chat/completions"],
       ask=["[Which|What] [route|URL|endpoint|path] [is for|do I use for|serves] chat?", "Where do I send [chat requests|messages|my request]?", "What does a request look like?", "Give me an example request."])
_topic("completions", "Send a POST to /v1/completions with model and prompt.", "The model continues your text.",
       ["/v1/completions"],
       do=["complete a text", "send a plain prompt", "continue a text", "use the completions endpoint", "get a text completion", "send a prompt without chat"],
       what=["/v1/completions", "the completions endpoint", "the completions route", "plain completion"],
       ask=["[Which|What] route completes [a text|plain text]?", "Can I send a prompt without messages?"])
_topic("model_name", "The built-in model is called brook.", "Put \"model\": \"brook\" into the request.",
       ["brook"],
       what=["the model name", "the name of the built-in model", "the built-in model", "the default model", "brook", "the model called brook"],
       ask=["[Which|What] model [name|id] do I [use|put in the request|send]?", "[Which|What] model comes with Sluice?", "[Which|What] model does Sluice [have|serve|use] by default?", "What do I write for model?", "Is there a built-in model?", "Does Sluice come with a model?"])
_topic("list_models", "Send GET /v1/models.", "The answer lists each model with its id and max_model_len.",
       ["/v1/models"],
       do=["list the models", "see which models exist", "find the model ids", "get the list of models", "see all models", "look up the models"],
       what=["/v1/models", "the models route", "the list of models"],
       ask=["[Which|What] models are [available|there|served|loaded]?", "[Which|What] route lists the models?", "Where do I see the models?"])
_topic("openai_client", "Set its base URL to http://127.0.0.1:8080/v1.", "Any OpenAI client then works unchanged; on your own machine any text will do as the key.",
       ["/v1"],
       do=["use the OpenAI client", "use the OpenAI library with Sluice", "connect the OpenAI SDK", "use Python with Sluice", "connect my app", "use JavaScript with Sluice", "call Sluice from Python", "connect LangChain", "use Sluice from Node", "use my OpenAI code with Sluice"],
       what=["the base URL", "the base url for clients"],
       ask=["[Which|What] base URL do I [need|set|use]?", "Does Sluice work with [the OpenAI client|LangChain|the OpenAI SDK|Python|OpenAI libraries|my OpenAI code]?", "Is Sluice compatible with [OpenAI|the OpenAI API]?", "[Which|What] API does Sluice [speak|have|use|offer]?", "Which clients work with Sluice?"])
_topic("stream", "Set \"stream\": true in the request.", "The tokens then come as server-sent events, and the stream ends with data: [DONE].",
       ["\"stream\": true"],
       do=["stream", "stream the answer", "turn on streaming", "get tokens one by one", "stream tokens", "get a streamed answer", "receive the answer piece by piece", "see words as they come", "use streaming", "enable streaming", "stream a response"],
       what=["streaming", "the stream field", "the stream option", "stream mode"],
       ask=["Does Sluice [support|do|have] streaming?", "Which field turns on streaming?", "Can I see the answer while it is written?", "Can I stream?"])
_topic("stream_end", "A stream ends with the line data: [DONE].", "The last content chunk before it carries the finish_reason.",
       ["[done]"],
       what=["data: <done>", "the <done> line", "the end of a stream", "the last line of a stream"],
       ask=["How does a stream end?", "How do I know that a stream [has ended|is over|is finished|is done]?", "When is a stream [over|finished|done|complete]?", "What comes at the end of a stream?"])
_topic("stream_format", "Streams use server-sent events, text/event-stream.", "Each event is a line that starts with data: and holds a JSON chunk.",
       ["event"],
       what=["the stream format", "the format of a stream", "the format of the chunks", "SSE in Sluice", "a stream chunk"],
       ask=["[Which|What] format [do streams have|does a stream have|do streams use]?", "What does a stream look like?", "How are streamed tokens sent?", "How do I read a stream?", "How do I parse a stream?"])
_topic("stream_usage", "Set \"stream_options\": {\"include_usage\": true}.", "One more chunk with the usage then comes before data: [DONE].",
       ["include_usage"],
       do=["get usage in a stream", "see the token count of a stream", "get the usage while streaming", "include usage in the stream"],
       what=["stream_options", "include_usage", "the include_usage option"],
       ask=["Why is there no usage in my stream?", "Where is the usage of a stream?", "How many tokens did my stream use?"])
_topic("stream_error", "An error in a stream comes as an event with an error object.", "The connection then closes without data: [DONE].",
       ["event", "error"],
       what=["an error in the middle of a stream", "a stream error"],
       ask=["What happens when a stream fails?", "How do I see an error [in|during] a stream?", "My stream [ended|stopped|broke off] without <done>. Why?", "What if something breaks during a stream?"])
_topic("disconnect", "Its work stops within one step.", "=When a client goes away, its work stops within one step, and only the tokens accepted so far are billed.",
       ["step"],
       do=["cancel a request", "stop a running request", "abort a stream", "cancel a stream"],
       ask=["What happens when [I close the connection|a client goes away|my client disconnects|I cancel a request|the client hangs up]?", "Does Sluice stop when I [disconnect|close the connection|hang up]?"])
_topic("usage_field", "The usage object in the answer.", "=The usage object in the answer counts prompt_tokens, completion_tokens and total_tokens.",
       ["usage"],
       do=["see how many tokens I used", "count the tokens of an answer", "find the token count of a request", "see the tokens of a request"],
       what=["the usage object", "usage in the answer", "prompt_tokens", "completion_tokens", "total_tokens"],
       ask=["How many tokens did my request [use|take|cost]?", "Where do I see the token count?", "What does usage count?"])
_topic("finish_reason", "It says why the answer ended.", "=The finish_reason says why the answer ended: stop, length, tool_calls or content_filter.",
       ["why the answer ended"],
       what=["finish_reason", "the finish reason", "the finish_reason field"],
       ask=["Which finish reasons are there?", "How do I know why the answer ended?", "What values can finish_reason have?"])
_topic("finish_length", "The answer reached its token limit.", "=The reason length means that the answer reached its token limit; raise max_tokens for a longer one.",
       ["limit"],
       what=["finish_reason length", "the finish reason length"],
       ask=["Why is my answer cut [off|short]?", "Why does [the|my] answer stop in the middle?", "My answer is too short. Why?", "The answer ends in the middle of a sentence. Why?", "The finish reason is length. Why?"])
_topic("max_tokens", "Set max_tokens in the request.", "It is the largest number of tokens in the answer.",
       ["max_tokens"],
       do=["limit the answer length", "make answers shorter", "get a longer answer", "set the length of the answer", "cap the output", "limit the output tokens", "limit the number of tokens in the answer"],
       what=["max_tokens", "the max_tokens field", "max_completion_tokens"],
       ask=["Which field limits the [answer|output|length]?", "How long can an answer be?"])
_topic("temperature", "It sets how random the answer is, from 0 to 2.", "=The temperature sets how random the answer is, from 0 to 2. With 0 the likeliest token always wins.",
       ["0 to 2"],
       do=["set the temperature", "make answers less random", "make the model more creative", "get the same answer every time without a seed", "control the randomness"],
       what=["temperature", "the temperature", "the temperature field", "the range of temperature", "a temperature of 0"],
       ask=["Which temperature can I use?", "What values may temperature have?", "Which field makes answers more random?"])
_topic("seed", "Set seed in the request.", "With the same seed, prompt and settings you get the same tokens again.",
       ["seed"],
       do=["get the same answer again", "make answers repeatable", "repeat an answer", "set a seed", "make the output reproducible", "reproduce an answer"],
       what=["seed", "the seed", "the seed field"],
       ask=["Are answers [repeatable|reproducible|deterministic]?", "Why do I get different answers each time?", "Is the output deterministic?"])
_topic("stop_strings", "Set stop in the request, with up to 4 strings.", "The answer ends before the first of them.",
       ["stop", "4"],
       do=["stop at a word", "use stop strings", "set a stop sequence", "end the answer at a certain text", "set stop words"],
       what=["stop strings", "the stop field", "a stop sequence", "stop sequences", "a stop string"],
       ask=["How many stop strings [are allowed|can I use|may I send]?", "Which field ends the answer at a text?"])
_topic("choices_n", "Set n in the request.", "You get n answers, and each of them is billed.",
       ["set n"],
       do=["get several answers", "get more than one answer", "ask for three answers", "get two choices", "get many answers to one question"],
       what=["n in a request", "the n field", "the field n"],
       ask=["Which field gives several answers?", "Can I get [several|two|many] answers at once?"])
_topic("system_prompt", "Add a message with the role system at the start.", "It tells the model how to behave, for example its name, its tone or how short to be.",
       ["role system"],
       do=["set a system prompt", "give the model a role", "add a system message", "tell the model how to behave", "give you instructions"],
       what=["a system prompt", "the system message", "the system role"],
       ask=["Where does the system prompt go?", "Does Sluice support system prompts?"])
_topic("tools", "Sluice does not take tools yet.",
       "A request with tools gets 400 unsupported_parameter.",
       ["not take tools|unsupported_parameter"],
       do=["use tools", "use function calling", "let the model call functions", "give the model tools", "call functions", "define a tool"],
       what=["tool calling", "function calling", "the tools field", "a tool call", "tool_calls"],
       ask=["Does Sluice [support|do|have] [tools|tool calls|function calling]?", "Can the model call [functions|tools|my functions]?"])
_topic("json_mode", "Sluice cannot force JSON yet.",
       "A response_format other than text gets 400 unsupported_parameter; ask for JSON in your message.",
       ["cannot force|unsupported_parameter"],
       do=["get JSON", "get JSON output", "force JSON", "make the model answer in JSON", "use a JSON schema", "get structured output"],
       what=["response_format", "JSON mode", "structured output", "json_schema"],
       ask=["Does Sluice [support|do|have] [JSON mode|structured output|JSON schemas]?", "Which field forces JSON?"])
_topic("embeddings", "Sluice has no embeddings yet.",
       "POST /v1/embeddings answers 400 unsupported_parameter.",
       ["no embeddings|unsupported_parameter"],
       do=["get embeddings", "make an embedding", "embed a text", "turn a text into a vector", "compute embeddings"],
       what=["/v1/embeddings", "the embeddings route", "the embeddings endpoint"],
       ask=["Does Sluice [support|do|have] embeddings?", "Which route makes embeddings?"])
_topic("tokenize", "Send a POST to /tokenize with model and prompt.", "The answer holds tokens, count and max_model_len.",
       ["/tokenize"],
       do=["count the tokens of a text", "tokenize a text", "count tokens before I send a prompt", "see the tokens of a text", "split a text into tokens", "find out how long my prompt is in tokens"],
       what=["/tokenize", "the tokenize route", "the tokenize endpoint", "sluice tokenize"],
       ask=["Which route counts [the tokens|tokens]?", "How many tokens does my prompt have?", "How many tokens is my text?"])
_topic("detokenize", "Send a POST to /detokenize with the tokens.", "The answer holds the text as prompt.",
       ["/detokenize"],
       do=["turn tokens into text", "detokenize", "turn ids back into text", "decode token ids", "get text from tokens"],
       what=["/detokenize", "the detokenize route"],
       ask=["Which route turns tokens [back into|into] text?"])
_topic("responses_api", "Sluice has no Responses API yet.",
       "Use POST /v1/chat/completions.",
       ["no responses|/v1/chat/completions"],
       do=["use the Responses API", "use the responses route", "store a response"],
       what=["/v1/responses", "the Responses API", "the responses route"],
       ask=["Does Sluice [support|have] the Responses API?"])
_topic("logprobs", "Sluice gives no logprobs yet.",
       "A request with logprobs gets 400 unsupported_parameter.",
       ["no logprobs|unsupported_parameter"],
       do=["get log probabilities", "get logprobs", "see how sure the model is", "see token probabilities"],
       what=["logprobs", "the logprobs field", "top_logprobs"],
       ask=["Does Sluice [support|have|give] logprobs?"])
_topic("images", "Sluice works with text only.", "Messages are strings or text parts.",
       ["text"],
       do=["send an image", "send a picture", "make images", "send audio"],
       ask=["Does Sluice [support|understand|do|make] [images|pictures|audio|video|speech|photos]?", "Can Sluice [see|draw|make|read] [images|pictures|photos]?", "Can I upload a [picture|photo|video]?"])

# Status codes and error codes.
_topic("e429", "429 means that a limit of your tenant is reached.", "Wait as long as the Retry-After header says, then try again; the error code names the limit.",
       ["limit", "reached"],
       what=["a 429", "429", "status 429", "error 429", "the status code 429", "HTTP 429", "a 429 error", "too many requests"],
       ask=[GOT + " [a 429|429|status 429|error 429|an HTTP 429]. " + FIX + "?", WHY + " [a 429|429|status 429|error 429|the status 429]?", "What do I do [on|after|about|with] a 429?",
            "My requests [fail with|end with|are refused with] 429."])
_topic("rate_limit_exceeded", "You sent too many requests or tokens in a minute.", "Wait as long as Retry-After says and send it again.",
       ["minute"],
       what=["rate_limit_exceeded", "the code rate_limit_exceeded", "the error rate_limit_exceeded", "a rate limit error"],
       ask=[GOT + " rate_limit_exceeded. " + FIX + "?", WHY + " rate_limit_exceeded?", "I hit the rate limit. What now?"])
_topic("insufficient_quota", "Your quota is spent.",
       "Trying again at once does not help; ask your operator for more.",
       ["quota|spent"],
       what=["insufficient_quota", "the code insufficient_quota", "the error insufficient_quota"],
       ask=[GOT + " insufficient_quota. " + FIX + "?", WHY + " insufficient_quota?", "What happens when my [quota|budget] is [used up|spent|empty]?"])
_topic("concurrency_limit", "Your tenant has too many requests running at once.", "Wait until one of them ends.",
       ["at once"],
       what=["concurrency_limit", "the code concurrency_limit", "the error concurrency_limit"],
       ask=[GOT + " concurrency_limit. " + FIX + "?", WHY + " concurrency_limit?"])
_topic("circuit_open", "The circuit breaker of your tenant is open.", "It closes again by itself; wait as long as Retry-After says.",
       ["breaker"],
       what=["tenant_circuit_open", "the code tenant_circuit_open", "the error tenant_circuit_open"],
       ask=[GOT + " tenant_circuit_open. " + FIX + "?", WHY + " tenant_circuit_open?"])
_topic("exceeds_capacity", "The request is larger than your whole limit.", "It can never be admitted, so make it smaller or ask for a higher limit.",
       ["larger"],
       what=["request_exceeds_quota_capacity", "the code request_exceeds_quota_capacity"],
       ask=[GOT + " request_exceeds_quota_capacity. " + FIX + "?", WHY + " request_exceeds_quota_capacity?"])
_topic("e401", "401 means that the API key is missing or wrong.", "Send the header Authorization: Bearer with a valid key.",
       ["key"],
       what=["a 401", "401", "status 401", "error 401", "invalid_api_key", "the code invalid_api_key", "HTTP 401"],
       ask=[GOT + " [a 401|401|status 401|invalid_api_key|an HTTP 401]. " + FIX + "?", WHY + " [a 401|401|status 401|invalid_api_key]?", "My key [is refused|does not work|is not accepted]. Why?", "It says that my key is invalid."])
_topic("e403", "403 means that your key may not do this.",
       "The model is not allowed for your tenant.",
       ["may not"],
       what=["a 403", "403", "status 403", "error 403", "model_not_allowed", "admin_required", "HTTP 403"],
       ask=[GOT + " [a 403|403|status 403|admin_required|model_not_allowed]. " + FIX + "?", WHY + " [a 403|403|status 403|admin_required|model_not_allowed]?"])
_topic("e404", "404 means that the route or the model does not exist.", "GET /v1/models lists the models.",
       ["not exist"],
       what=["a 404", "404", "status 404", "error 404", "model_not_found", "HTTP 404", "the code model_not_found"],
       ask=[GOT + " [a 404|404|status 404|model_not_found|error 404]. " + FIX + "?", WHY + " [a 404|404|status 404|model_not_found]?", "It says that my model was not found."])
_topic("e405", "405 means that the route exists but not with this method.", "The Allow header names the methods that work.",
       ["method"],
       what=["a 405", "405", "status 405", "error 405", "method_not_allowed", "HTTP 405"],
       ask=[GOT + " [a 405|405|status 405|method_not_allowed|error 405]. " + FIX + "?", WHY + " [a 405|405|status 405|method_not_allowed]?"])
_topic("e400", "400 means that something in the request is wrong.", "The message says what, and param names the field.",
       ["wrong"],
       what=["a 400", "400", "status 400", "error 400", "invalid_value", "invalid_json", "HTTP 400", "a bad request"],
       ask=[GOT + " [a 400|400|status 400|invalid_value|invalid_json]. " + FIX + "?", WHY + " [a 400|400|status 400|invalid_json|invalid_value]?", "What is wrong with my request?"])
_topic("context_length", "The prompt and the answer together are too long for the model.", "Shorten the prompt or lower max_tokens.",
       ["too long"],
       what=["context_length_exceeded", "the code context_length_exceeded", "the error context_length_exceeded"],
       ask=[GOT + " context_length_exceeded. " + FIX + "?", WHY + " context_length_exceeded?", "What if my prompt is too long?", "My prompt is too long. What now?"])
_topic("e413", "413 means that the request body is too large.", "Send a smaller one.",
       ["too large"],
       what=["a 413", "413", "status 413", "error 413", "request_too_large", "HTTP 413"],
       ask=[GOT + " [a 413|413|status 413|request_too_large|error 413]. " + FIX + "?", WHY + " [a 413|413|status 413|request_too_large]?"])
_topic("e500", "500 means that something broke inside Sluice.", "Try again, and report it with the x-request-id if it comes back.",
       ["inside"],
       what=["a 500", "500", "status 500", "error 500", "internal_error", "HTTP 500", "a server error"],
       ask=[GOT + " [a 500|500|status 500|internal_error|error 500]. " + FIX + "?", WHY + " [a 500|500|status 500|internal_error]?"])
_topic("poisoned", "The request crashed the worker again and again, so Sluice gave it up.", "The other requests went on.",
       ["crash"],
       what=["poisoned_request", "the code poisoned_request", "a poisoned request", "the error poisoned_request"],
       ask=[GOT + " poisoned_request. " + FIX + "?", WHY + " poisoned_request?"])
_topic("e503", "503 means that Sluice cannot take the request now.", "It is overloaded, loading or draining; try again after the Retry-After time.",
       ["now"],
       what=["a 503", "503", "status 503", "error 503", "overloaded", "the code overloaded", "no_healthy_worker", "model_loading", "HTTP 503"],
       ask=[GOT + " [a 503|503|status 503|overloaded|no_healthy_worker|model_loading]. " + FIX + "?", WHY + " [a 503|503|status 503|overloaded|model_loading]?", "What happens when Sluice is [overloaded|too busy|full]?"])
_topic("e504", "504 means that the deadline of the request has passed.", "Give it more time with the header x-sluice-deadline-ms.",
       ["deadline"],
       what=["a 504", "504", "status 504", "error 504", "deadline_exceeded", "HTTP 504"],
       ask=[GOT + " [a 504|504|status 504|deadline_exceeded|error 504]. " + FIX + "?", WHY + " [a 504|504|status 504|deadline_exceeded]?"])
_topic("error_shape", "Errors are JSON: {\"error\": {\"message\", \"type\", \"param\", \"code\"}}.", "The code is a string that programs can test.",
       ["code"],
       what=["the error format", "an error answer", "the error object", "the shape of an error"],
       do=["read an error", "handle errors", "parse an error"],
       ask=["What do errors look like?", "Which fields does an error have?", "What does an error answer contain?"])

# Quotas and tenants.
_topic("set_quota", "Set the limits of the tenant in the configuration file.",
       "For example tokens_per_minute: 10000. Then send SIGHUP, and it acts without a restart.",
       ["configuration", "limits|tokens_per_minute"],
       do=["set a quota", "set the quota of a tenant", "change a quota", "limit a tenant", "set a limit", "raise a quota", "lower a quota", "give a tenant a quota", "limit the tokens of a tenant", "set tokens per minute", "change the limits of a tenant", "set a token limit", "configure quotas", "set a rate limit"],
       what=["tokens_per_minute", "the limits setting", "the quota setting"],
       ask=["[Which|What] [file|setting|option] [sets|changes] a quota?", "Where do I [set|change] [quotas|a quota|the quota|limits]?", "How are quotas [set|changed|configured]?"])
_topic("see_quota", "Read the x-ratelimit headers of any answer.",
       "They show your limits, what remains and when they reset.",
       ["x-ratelimit"],
       do=["see my quota", "check my quota", "see how many tokens I have left", "see my own limits", "find out what remains of my quota", "look at my limits", "see what I have left"],
       what=["my quota", "my remaining quota", "what is left of my quota"],
       ask=["How much quota do I have left?", "How many tokens do I have left?", "What are my limits?", "Where do I see my [quota|limits]?", "When does my quota reset?", "How much is left of my quota?"])
_topic("quota_kinds", "There are limits on requests per minute, tokens per minute, running requests and output tokens.",
       "Each one can be set for a tenant.",
       ["per minute", "running|output"],
       what=["the kinds of limits", "the possible limits", "the quota fields"],
       ask=["[Which|What] [limits|quotas] [are there|exist|can I set|does Sluice have]?", "What kinds of [limits|quotas] are there?", "What can I limit?", "What can a quota limit?"])
_topic("quota", "A quota is the amount that a tenant may use in a time.", "Sluice counts it in tokens and never lets a tenant go over it.",
       ["amount"],
       what=["a quota", "quota", "quotas", "a token quota", "the word quota"],
       ask=["Why are there quotas?", "What are quotas [for|good for]?", "How do quotas work?"])
_topic("reservation", "Tokens are held before a request waits, and what it did not use is free again at its end.", "So a limit is never passed.",
       ["held"],
       what=["a reservation", "token reservation", "the reservation of tokens", "reserve and settle"],
       ask=["How does Sluice keep limits exact?", "Why are tokens reserved?", "Can a tenant go over its limit?", "Can I pass my limit with many requests at once?"])
_topic("tenant", "A tenant is a customer or team with its own keys and limits.",
       "Tenants cannot see or starve each other.",
       ["keys"],
       what=["a tenant", "tenants", "a Sluice tenant", "the word tenant", "multi-tenancy"],
       ask=["What are tenants [for|good for]?", "Who is a tenant?", "Why are there tenants?"])
_topic("create_tenant", "Add it under tenants in the configuration file.",
       "Give it a name and the SHA-256 of its key, then send SIGHUP.",
       ["tenants", "configuration"],
       do=["create a tenant", "add a tenant", "make a new tenant", "add a customer", "add a team", "set up a tenant", "register a tenant"],
       ask=["Which setting [creates|makes|adds] a tenant?", "Where do I [create|add] tenants?"])
_topic("block_tenant", "Take its keys out of the configuration file and send SIGHUP.",
       "Its next requests then get 401.",
       ["keys", "configuration|sighup"],
       do=["block a tenant", "lock out a tenant", "suspend a tenant", "stop a tenant", "turn a tenant off", "disable a tenant"],
       ask=["Can I [block|suspend|disable] a tenant?"])
_topic("see_usage", "Each answer has a usage object with its tokens.",
       "GET /metrics has the sums of all requests.",
       ["usage", "/metrics|answer"],
       do=["see the usage of a tenant", "get a usage report", "see what a tenant used", "see who used how many tokens", "count the tokens that were used", "see how much was used"],
       what=["a usage report", "the usage report", "the usage of a tenant"],
       ask=["Where are the used tokens?", "Which route reports usage?", "Where do I see the usage of [a tenant|all tenants|my tenants]?"])
_topic("breaker", "A circuit breaker stops a tenant or a worker that does harm for a while.", "It then lets a few probes through and closes again when they go well.",
       ["tenant or a worker"],
       what=["a circuit breaker", "circuit breakers", "the circuit breaker", "a breaker", "the breaker"],
       ask=["Why does Sluice have circuit breakers?", "What do circuit breakers do?", "How does a circuit breaker work?"])

# Keys.
_topic("add_key", "Run sluice key new.",
       "It prints a key and its SHA-256. Put the SHA-256 under the keys of a tenant in the configuration file and send SIGHUP.",
       ["sluice key new"],
       do=["add a key", "create a key", "make an API key", "create an API key", "get a new key", "add an API key", "give a tenant a key", "make a key for a tenant", "generate a key", "issue a key", "get an API key"],
       ask=["Which command [creates|makes|adds] a key?", "Where do I get [a|an API] key?", "Where do [API keys|keys] come from?"])
_topic("send_key", "Send the header Authorization: Bearer followed by your key.", "OpenAI clients do this with their api_key setting.",
       ["authorization: bearer"],
       do=["send my key", "use my key", "use my API key", "authenticate", "log in", "pass the key", "put the key in a request", "use an API key with curl"],
       what=["the Authorization header", "the bearer header"],
       ask=["[Which|What] header [is for|carries|holds] the key?", "Where does [my|the] key go?", "Where do I put [my|the] key?"])
_topic("need_key", "Not on your own machine.", "On 127.0.0.1 Sluice works without a key; it refuses any other address until keys are configured.",
       ["own machine"],
       ask=["Do I need [a key|an API key|a password|an account]?", "Does Sluice [need|require|want] [a key|an API key]?", "Can I use Sluice without [a key|an API key]?", "Is [a key|an API key] [needed|required|necessary]?"])
_topic("key_format", "A key looks like sk-sluice-<public id>-<secret>.", "The public id names it, and the secret proves it.",
       ["sk-sluice"],
       what=["the key format", "the format of a key", "sk-sluice", "the public id of a key"],
       ask=["What does [a|an API] key look like?", "How does a key [look|begin|start]?"])
_topic("lost_key", "It cannot be shown again; make a new one with sluice key new.",
       "Sluice keeps only a hash of the key.",
       ["new one|hash"],
       do=["recover a lost key", "see my key again", "find my old key", "get my lost key back", "read the secret of a key again"],
       ask=["I lost my key. What [now|can I do|should I do]?", "I forgot my [key|API key|secret].", "Where is my key [stored|saved]?", "Can you show me my key?", "Are keys stored [in plain text|safely]?"])
_topic("revoke_key", "Take its SHA-256 out of the configuration file and send SIGHUP.",
       "The key then gets 401.",
       ["configuration", "sighup"],
       do=["revoke a key", "delete a key", "remove a key", "block a key", "disable a key", "take a key away"],
       ask=["My key was stolen. What [now|do I do]?", "Where do I revoke a key?", "Which file holds the keys?"])
_topic("rotate_key", "Put the new key beside the old one in the configuration file, send SIGHUP, and take the old one out later.",
       "",
       ["beside the old"],
       do=["rotate a key", "replace a key without downtime", "renew a key", "change a key without an outage", "swap a key"],
       what=["key rotation", "a key rotation"])
_topic("admin_key", "Sluice has no admin keys yet.",
       "Tenants, keys and limits stand in the configuration file.",
       ["no admin keys|configuration"],
       do=["get an admin key", "create an admin key", "make an admin key", "become an admin", "use the admin API", "get admin access"],
       what=["an admin key", "the admin key"],
       ask=["Where do I get an admin key?", "Is there an admin API?", "Which command makes an admin key?"])

# Headers, health, metrics.
_topic("retry_after", "It says how many seconds to wait before you try again.", "=Retry-After is a header that says how many seconds to wait before you try again.",
       ["wait"],
       what=["Retry-After", "the Retry-After header", "the header Retry-After"],
       ask=["How long should I wait [before I try again|after a 429|before the next try]?", "When can I [retry|try again]?", "Which header says how long to wait?"])
_topic("ratelimit_headers", "They show your limit, what remains and when it resets.", "=The x-ratelimit headers show your limit, what remains and when it resets, for requests and for tokens.",
       ["remains"],
       what=["the x-ratelimit headers", "x-ratelimit-remaining-tokens", "the rate limit headers", "x-ratelimit-remaining-requests", "x-ratelimit-reset-tokens"],
       ask=["Which headers show [my limits|the rate limit|what remains]?"])
_topic("request_id", "It names one request.", "=The header x-request-id names one request: send your own or read the one that Sluice makes.",
       ["names one request"],
       do=["find a request in the logs", "trace a request", "set a request id", "give a request an id"],
       what=["x-request-id", "the x-request-id header", "the request id"],
       ask=["Which header names the request?", "Does each request have an id?"])
_topic("deadline", "Send the header x-sluice-deadline-ms.", "When that many milliseconds have passed, the request ends with 504.",
       ["x-sluice-deadline-ms"],
       do=["set a deadline", "set a timeout for a request", "limit the time of a request", "give a request a time limit", "set a time limit"],
       what=["x-sluice-deadline-ms", "the deadline header", "the x-sluice-deadline-ms header"],
       ask=["Which header sets a deadline?"])
_topic("priority", "Send the header x-sluice-priority.", "It cannot go above the ceiling of your tenant.",
       ["x-sluice-priority"],
       do=["set a priority", "make a request more important", "get served first", "raise the priority of a request"],
       what=["x-sluice-priority", "the priority header", "the priority of a request"],
       ask=["Which header sets the priority?", "Does Sluice [have|know|support] priorities?"])
_topic("metrics", "Read GET /metrics.", "It is Prometheus text with the metric names of vLLM, and our own start with sluice_.",
       ["/metrics"],
       do=["get metrics", "monitor Sluice", "connect Prometheus", "see the metrics", "watch the load", "scrape metrics", "use Grafana", "set up monitoring"],
       what=["/metrics", "the metrics route", "the metrics", "the monitoring"],
       ask=["Does Sluice [support|have|export|offer] [Prometheus|metrics|monitoring]?", "Where are the metrics?", "Which route has the metrics?"])
_topic("health", "Use GET /live and GET /ready.", "The first says that the process answers, the second that every model has a working worker.",
       ["/live", "/ready"],
       do=["check the health", "check that Sluice is alive", "see whether Sluice is ready", "set up a health check", "probe Sluice", "know if the server is up"],
       what=["/ready", "/live", "/health", "the health check", "the readiness check", "the difference between live and ready"],
       ask=["Is Sluice [ready|up|healthy|alive|running]?", "Which route is the health check?", "Why does /ready [answer|return|say] 503?"])
_topic("crash", "Another worker takes over, and the client does not notice.", "The gateway keeps the tokens of each request, so the stream goes on where it was.",
       ["another worker|goes on"],
       do=["survive a crash of a worker"],
       what=["a worker crash", "the recovery after a crash"],
       ask=["What happens when a worker [crashes|dies|fails|stops]?", "What if a worker [crashes|dies|fails]?", "Do I lose my stream when a worker [dies|crashes]?", "What happens to my request when a worker [crashes|dies]?"])
_topic("privacy", "Prompts and keys appear in no log and no metric.", "They stay on your machine.",
       ["no log"],
       what=["the privacy of my prompts", "the privacy in Sluice"],
       ask=["Does Sluice [log|store|keep|save] my [prompts|messages|keys|questions|data]?", "Are my prompts [logged|stored|private|safe|saved]?", "Who can read my [prompts|messages]?", "Is my data [private|safe]?", "Does Sluice send [my data|anything] [away|to the internet|to the cloud]?"])
_topic("logs", "Sluice writes one event per line to its log.", "Prompts and keys never appear in it.",
       ["one event"],
       do=["read the logs", "see the log", "find the logs"],
       what=["the log", "the log format"],
       ask=["Where are the logs?", "Where is the log?", "What does the log look like?"])
_topic("store", "Sluice needs no database.",
       "Tenants and keys stand in the configuration file, and what is billed in the journal.",
       ["no database|journal"],
       what=["the store", "the database of Sluice", "the journal"],
       ask=["[Which|What] database does Sluice use?", "Do I need a database?", "Where does Sluice [store|keep] [tenants|keys|usage|its data]?", "Does Sluice [need|use] [Redis|a database|SQLite|Postgres]?"])
_topic("kubernetes", "Sluice runs on one machine.",
       "Its metrics have the names of vLLM, so boards and scaling rules for vLLM fit.",
       ["one machine|metrics"],
       do=["run Sluice on Kubernetes", "deploy Sluice", "scale Sluice", "use Sluice in a cluster", "run Sluice on many machines"],
       what=["the Kubernetes support"],
       ask=["Does Sluice [support|run on|work with] Kubernetes?", "Can Sluice run on [many|several] machines?"])

# Words.
_topic("token", "A token is a small piece of text, about a word or a part of one.", "Models read and write tokens, and Sluice counts them.",
       ["piece of text"],
       what=["a token", "tokens", "the word token", "a text token"],
       ask=["How long is a token?", "What are tokens [for|good for]?"])
_topic("ttft", "TTFT is the time from the request to the first token.", "It is part of what sluice bench prints.",
       ["first token"],
       what=["TTFT", "time to first token", "the time to first token", "the word TTFT"])
_topic("kv_cache", "The KV cache keeps the keys and values of all tokens so far.", "So each new token costs only one step.",
       ["keys and values"],
       what=["the KV cache", "a KV cache", "a KV block", "KV blocks"],
       ask=["What is the KV cache [for|good for]?", "Why does Sluice need a KV cache?"])
_topic("prefix_cache", "The prefix cache reuses the work for a prompt start that was seen before.", "It never mixes tenants.",
       ["reuse"],
       what=["the prefix cache", "prefix caching", "a prefix cache", "a prefix hit", "cached_tokens"],
       ask=["What is the prefix cache [for|good for]?", "Why are some tokens cached?"])
_topic("batching", "Sluice forms a new batch of requests for every token.", "So a free place is filled at once and nobody waits for the slowest. This is continuous batching.",
       ["every token"],
       what=["continuous batching", "the batching", "batching in Sluice", "a batch", "a step"],
       ask=["How does Sluice [batch|serve] many requests [at once|together]?", "Does Sluice [batch|do batching]?", "How are many requests served at once?"])
_topic("fingerprint", "It names the build, the weights and the kernel path.", "=The system_fingerprint names the build, the weights and the kernel path; equal ones give equal tokens.",
       ["weights"],
       what=["system_fingerprint", "the system fingerprint", "the system_fingerprint field"])

# Brook itself.
_topic("who", "I am Brook, the small model that is built into Sluice.", "I can chat a little, tell short stories and answer questions about Sluice.",
       ["brook"],
       ask=["Who are you?", "What are you?", "Introduce yourself.", "Tell me about yourself.", "Which model [are you|is this|am I talking to]?", "Who am I talking to?", "What model are you?", "Can you introduce yourself?", "Are you [ChatGPT|a robot|a human|a person|an AI|a model|alive|a machine]?", "Say something about yourself."])
_topic("brook_can", "I can chat a little, tell short stories, do small sums and answer questions about Sluice.", "I am a tiny model, so I know little else.",
       ["stories"],
       ask=["What can you do?", "What do you know?", "How can you help me?", "Can you help me?", "What are you good at?", "What can I ask you?", "What should I ask you?", "What are you able to do?", "What can Brook do?", "What is Brook good at?", "What [questions|things] can you answer?"])
_topic("brook_size", "I have fewer than four million parameters.", "Large models have thousands of times as many, so please check what I say.",
       ["four million"],
       ask=["How [big|large] are you?", "How many parameters do you have?", "What is your size?", "Are you a [big|large|small|tiny] model?", "How many parameters does Brook have?", "How [big|large] is Brook?", "What size is Brook?"])
_topic("brook_training", "A script of the Sluice project trained me on text that the project wrote itself.", "No text of other people went into me.",
       ["project"],
       ask=["How were you [trained|made|built]?", "What were you trained on?", "Where does your knowledge come from?", "Who [made|trained|built|created|wrote] you?", "How was Brook [trained|made|built]?", "Who [made|trained|built|created] Brook?", "What is Brook trained on?", "Who is your maker?"])
_topic("brook_wrong", "I make mistakes: I am very small and often wrong outside of what I was taught.", "Please check the documentation of Sluice.",
       ["wrong"],
       ask=["[Can|Do] you make mistakes?", "Are you [always right|ever wrong|reliable|sometimes wrong]?", "[Can|Should] I trust you?", "Are your answers [correct|right|true]?", "How good are you?", "Do you [lie|get things wrong]?"])

# Pairs of (topic just answered, follow-up question, topic of its answer).
FOLLOW_UPS = (
    ("port", "[And how|How] do I change it?", "change_port"), ("port", "Can I [change it|use another one]?", "change_port"),
    ("what_is", "[And how|How] do I start it?", "start"), ("what_is", "[And which|Which] port does it use?", "port"),
    ("what_is", "Does it need a GPU?", "gpu"), ("what_is", "Is it free?", "licence"), ("what_is", "[What|And what] is it written in?", "language"),
    ("start", "[And how|How] do I stop it?", "stop_server"), ("start", "And which port is that?", "port"), ("start", "[And then|What then|And now]?", "first_request"),
    ("start", "Can it run on another port?", "change_port"), ("stop_server", "[And how|How] do I start it again?", "start"),
    ("e429", "How long [should|must] I wait?", "retry_after"), ("e429", "How do I raise the limit?", "set_quota"), ("e429", "How do I see what is left?", "see_quota"),
    ("set_quota", "How do I make it act?", "reload"), ("set_quota", "How do I see [it|what is left]?", "see_quota"), ("set_quota", "Which limits are there?", "quota_kinds"),
    ("add_key", "[And where|Where] do I put it?", "send_key"), ("add_key", "What does it look like?", "key_format"), ("add_key", "What if I lose it?", "lost_key"), ("add_key", "How do I revoke it?", "revoke_key"),
    ("stream", "[And how|How] does it end?", "stream_end"), ("stream", "Can I get the usage too?", "stream_usage"),
    ("create_tenant", "[And how|How] do I give it a key?", "add_key"), ("create_tenant", "How do I set its quota?", "set_quota"), ("create_tenant", "How do I block it?", "block_tenant"),
    ("tenant", "[And how|How] do I create one?", "create_tenant"), ("quota", "[And how|How] do I set one?", "set_quota"), ("model_name", "Can I use another one?", "own_model"),
    ("first_request", "And how do I stream it?", "stream"), ("first_request", "Do I need a key?", "need_key"), ("config", "How do I check it?", "check_config"),
    ("who", "How big are you?", "brook_size"), ("who", "Who made you?", "brook_training"), ("who", "What can you do?", "brook_can"), ("brook_can", "And do you make mistakes?", "brook_wrong"),
    ("worker", "How do I run more of them?", "workers_option"), ("admin_key", "[And how|How] do I set a quota then?", "set_quota"),
)

BY_NAME = {topic.name: topic for topic in TOPICS}
