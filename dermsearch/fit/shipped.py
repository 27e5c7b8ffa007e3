"""The fits that come with the package, as `module:class`. They are protocols too: their predictions are judged."""

SHIPPED = {
    "finetune": "dermsearch.fit.finetune:Finetune",
    "baseline": "dermsearch.fit.baseline:Baseline",
    "inception_combined": "dermsearch.fit.inception_combined:InceptionCombined",
    "hccnn": "dermsearch.fit.hccnn:HcCNN",
    "giin": "dermsearch.fit.giin:GIIN",
    "amfam": "dermsearch.fit.amfam:AMFAM",
    "fusion_m4net": "dermsearch.fit.fusion_m4net:FusionM4Net",
    "fusion_m4net_svm": "dermsearch.fit.fusion_m4net_svm:FusionM4NetSVM",
    "source_only": "dermsearch.fit.source_only:SourceOnly",
    "adabn": "dermsearch.fit.adabn:AdaBN",
    "our_alignment": "dermsearch.fit.our_alignment:OurAlignment",
    "dcan": "dermsearch.fit.dcan:DCAN",
    "dann": "dermsearch.fit.dann:DANN",
}
