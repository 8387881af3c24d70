"""Ready-to-run agents that digest a folder of documents together.

Each file is one agent on the public interface of streammesh and runs by itself (`python -m workers.reader`, or
`streammesh agent --app workers.reader:agent`). All capabilities are pure functions of their payload (the reader's: of
the files it names), so a task that runs twice answers the same twice.

    reader       list-documents, read-document     folder -> documents -> titles and clean text
    keywords     count-terms, rank-keywords        text -> counts -> keywords by TF-IDF over the corpus
    summarizer   summarize                         text -> its most telling sentences, by one of three methods
    critic       criticize                         text and summary -> coverage, redundancy, length, clarity, overall
    editor       assemble-digest                   what the others found -> digest.md
    digest       workflows digest, digest-document a folder -> all of that, step by step, whatever dies meanwhile

`workers/text/` holds what several of them need to know about text; it does not know streammesh.
"""
