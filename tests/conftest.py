import mmn_utils  # noqa: F401  (goes before transformers and timm, wherever torchvision was built for another torch)
