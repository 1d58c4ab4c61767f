"""BibTeX of the methods, for model cards."""

HYPEROFA = """@misc{ozeren2025hyperofa,
  title = {{HYPEROFA}: Expanding {LLM} Vocabulary to New Languages via Hypernetwork-Based Embedding Initialization},
  author = {{\\"O}zeren, Enes and Liu, Yihong and Sch{\\"u}tze, Hinrich},
  year = {2025},
  eprint = {2504.21018},
  archivePrefix = {arXiv},
}"""
OFA = """@misc{liu2023ofa,
  title = {{OFA}: A Framework of Initializing Unseen Subword Embeddings for Efficient Large-scale Multilingual
           Continued Pretraining},
  author = {Liu, Yihong and Lin, Peiqin and Wang, Mingyang and Sch{\\"u}tze, Hinrich},
  year = {2023},
  eprint = {2311.08849},
  archivePrefix = {arXiv},
}"""
HEWITT = """@misc{hewitt2021initializing,
  title = {Initializing New Word Embeddings for Pretrained Language Models},
  author = {Hewitt, John},
  year = {2021},
  howpublished = {\\url{https://nlp.stanford.edu/~johnhew/vocab-expansion.html}},
}"""
FVT = """@misc{gee2024fast,
  title = {Fast Vocabulary Transfer for Language Model Compression},
  author = {Gee, Leonidas and Zugarini, Andrea and Rigutini, Leonardo and Torroni, Paolo},
  year = {2024},
  eprint = {2402.09977},
  archivePrefix = {arXiv},
}"""
WECHSEL = """@misc{minixhofer2021wechsel,
  title = {{WECHSEL}: Effective initialization of subword embeddings for cross-lingual transfer of monolingual
           language models},
  author = {Minixhofer, Benjamin and Paischer, Fabian and Rekabsaz, Navid},
  year = {2021},
  eprint = {2112.06598},
  archivePrefix = {arXiv},
}"""
FOCUS = """@misc{dobler2023focus,
  title = {{FOCUS}: Effective Embedding Initialization for Monolingual Specialization of Multilingual Models},
  author = {Dobler, Konstantin and de Melo, Gerard},
  year = {2023},
  eprint = {2305.14481},
  archivePrefix = {arXiv},
}"""
CLP = """@misc{ostendorff2023efficient,
  title = {Efficient Language Model Training through Cross-Lingual and Progressive Transfer Learning},
  author = {Ostendorff, Malte and Rehm, Georg},
  year = {2023},
  eprint = {2301.09626},
  archivePrefix = {arXiv},
}"""
OMP = """@misc{goddard2025training,
  title = {Training-Free Tokenizer Transplantation via Orthogonal Matching Pursuit},
  author = {Goddard, Charles and Fernandes Neto, Fernando},
  year = {2025},
  eprint = {2506.06607},
  archivePrefix = {arXiv},
}"""
TRANSTOKENIZER = """@misc{remy2024trans,
  title = {Trans-Tokenization and Cross-lingual Vocabulary Transfers: Language Adaptation of {LLMs} for Low-Resource
           {NLP}},
  author = {Remy, Fran{\\c{c}}ois and Delobelle, Pieter and Avetisyan, Hayastan and Khabibullina, Alfiya and
            de Lhoneux, Miryam and Demeester, Thomas},
  year = {2024},
  eprint = {2408.04303},
  archivePrefix = {arXiv},
}"""
