"""From where on a check complains.

Chosen on networks with random weights, for which most maps mean nothing yet are no mistake of the explainer's, and on
small trained ones; docs/checks.md gives the measured values. Correlations are of maps as they are, pixel by pixel.
"""

# Deconvolution without max-pooling: 1.000; on EfficientNet (gates let the image in): 0.9999. The plain gradient of an
# EfficientNet with random weights, which is nearly linear: 0.988 to 0.996.
SAME_FOR_ALL_IMAGES = 0.999
NEARLY_SAME_FOR_ALL_IMAGES = 0.97

# With all weights shuffled, a detector of edges keeps 1.000. What survives in other maps is the network's grid: up to
# 0.85 for absolute gradients of ResNet-18.
SAME_WITHOUT_WEIGHTS = 0.95
NEARLY_SAME_WITHOUT_WEIGHTS = 0.8
# With the last layer alone shuffled: guided back-propagation 0.98 to 1.00; plain gradients up to 0.84.
NEARLY_SAME_WITHOUT_HEAD = 0.97

# Guided back-propagation for two classes: 0.98 on ResNet-18, 0.999 on EfficientNet; plain absolute gradients 0.82.
SAME_FOR_ALL_CLASSES = 0.9999
NEARLY_SAME_FOR_ALL_CLASSES = 0.95

# The plain gradient computed twice: 1.000000. Guided and plain gradients that differ: up to 0.94, and 0.996 in ranks.
PLAIN_GRADIENT = 0.999
PLAIN_GRADIENT_IN_RANKS = 0.9995
