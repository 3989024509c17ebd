"""What is timed, side by side with the bare computation or with peers: `python -m benchmarks`."""

import mmn_utils  # noqa: F401  (goes before transformers, wherever torchvision was built for another torch)
